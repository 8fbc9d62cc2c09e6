"""The time of one local decision, compared with the nearest equivalent in feature-flag SDKs.

    python benchmarks/decide.py [--venv DIR] [--rounds 60]

Creates a virtual environment (a temporary one, unless `--venv` names one to keep), installs the router client and
the SDKs from PyPI, and measures them in one process, in turn, offline, with inputs built beforehand.

- pointsman decides for one of 100 workloads: five rules, history, a running 50 % rollout, unit ids.
- each SDK evaluates one of 100 boolean flags: three constraints (all hold), then a 50 % rollout by the unit.
- the closure is the same five rules written in Python, the limit of an evaluator: 100 of them, each its own code.
Before it is measured, each must assign between 40 and 60 % of 1,000 units to its rollout.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType
from typing import Any

from flag_sdks import (
    PACKAGES,
    UNITS,
    WORKLOADS,
    Contestant,
    flagd,
    growthbook,
    launchdarkly,
    statsig,
    unleash,
)  # fmt: skip

CLIENT = Path(__file__).resolve().parent.parent / "router_client"
CALLS = 200  # per round; their mean is one sample

Call = Callable[[int], Any]

RULES = [
    ("critical", 'request.priority == "critical" || request.customer_tier in ["enterprise", "gold"]'),
    ("heavy", "request.prompt_tokens > 8000 || request.retrieved_chunks > 20 || request.tool_calls > 0"),
    ("flaky", "history.failure_rate > 0.15 && history.tasks >= 50"),
    ("unsure", "has(request.confidence) && request.confidence < 0.4"),
    ("long", 'request.turns > 30 && request.language == "de"'),
]
REQUEST = {
    "priority": "normal", "customer_tier": "free", "prompt_tokens": 900, "retrieved_chunks": 4,
    "tool_calls": 0,
    "turns": 3, "language": "en", "endpoint": "/tickets/summary", "confidence": 0.8,
}  # fmt: skip


def policy(workload: str) -> dict[str, Any]:
    return {
        "format": 1,
        "workload": workload,
        "models": {"small": {"model": "vendor/small"}, "large": {"model": "vendor/large"}},
        "rules": [{"id": name, "when": when, "use": "large"} for name, when in RULES],
        "default": "small",
        "fallback": ["large", "small"],
    }


# Pointsman


def pointsman_decide() -> Contestant:
    """The complete call: router.decide with ids, history, rollout, counters."""
    from pointsman import Router
    from pointsman.policy.canonical import digest
    from pointsman.sync.store import DiskStore, Received

    def entry(name: str) -> dict[str, Any]:
        sides = {"baseline": policy(name), "candidate": {**policy(name), "batch": True}}
        rollout = {"id": "r", "stage": 1, "mode": "percentage", "share_pcm": 50_000, "salt": name}
        versions = {
            arm: {"version": 1, "digest": digest(data), "policy": data} for arm, data in sides.items()
        }
        return {"revision": 1, "unit": "conversation", **versions, "rollout": rollout, "pin": None}

    snapshot = {
        "format": 1, "environment": "bench", "epoch": "e", "revision": 1, "full": True,
        "workloads": {name: entry(name) for name in WORKLOADS}, "removed": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        store = DiskStore(Path(directory) / "snapshot")
        store.save([Received(json.dumps(snapshot).encode())])
        router = Router("http://127.0.0.1:9", "key", store=store, start=False)
    for name in WORKLOADS:
        for _ in range(200):
            router.record(router.decide(name, REQUEST), success=True)
    ids = [{"request": f"q-{unit}", "conversation": unit} for unit in UNITS]
    decide = router.decide

    def call(n: int) -> Any:
        return decide(WORKLOADS[n % 100], REQUEST, ids[n % 1_000])

    return Contestant("pointsman: decide()", "pointsman", call, lambda decision: decision.arm == "candidate")


def pointsman_route() -> Contestant:
    """Evaluation alone: the compiled policy, with five rules, none of which matches."""
    from pointsman.evaluate import compile_policy
    from pointsman.history import Window

    window = Window()
    for _ in range(200):
        window.record(False)
    routes = [compile_policy(policy(name)).route for name in WORKLOADS]
    return Contestant("pointsman: evaluation", "pointsman", lambda n: routes[n % 100](REQUEST, window), None)


def closure() -> Contestant:
    """The same rules written in Python, with the same inputs."""
    from pointsman.history import Window

    window = Window()
    for _ in range(200):
        window.record(False)

    def route(request: dict[str, Any], history: Any) -> str:
        if request.get("priority") == "critical" or request.get("customer_tier") in ("enterprise", "gold"):
            return "large"
        if (
            request.get("prompt_tokens", 0) > 8_000
            or request.get("retrieved_chunks", 0) > 20
            or request.get("tool_calls", 0) > 0
        ):
            return "large"
        failure_rate, tasks = history.reading()
        if failure_rate is not None and failure_rate > 0.15 and tasks >= 50:
            return "large"
        confidence = request.get("confidence")
        if confidence is not None and confidence < 0.4:
            return "large"
        if request.get("turns", 0) > 30 and request.get("language") == "de":
            return "large"
        return "small"

    # Shared code would stay in the processor's cache, unlike that of 100 policies.
    routes = [FunctionType(route.__code__.replace(co_name=f"route_{number}"), {}) for number in range(100)]
    return Contestant("closure by hand", None, lambda n: routes[n % 100](REQUEST, window), None)


MAKERS = (
    pointsman_decide, pointsman_route, closure, unleash, launchdarkly, growthbook, flagd, statsig,
)  # fmt: skip


# Measuring


def check(contestant: Contestant) -> str | None:
    """Return why a contestant is left out, or None. One that does not roll out measures nothing."""
    if contestant.inside is None:
        return None
    inside = sum(contestant.inside(contestant.call(n)) for n in range(1_000))
    return None if 400 <= inside <= 600 else f"{inside} of 1,000 units in its 50 % rollout"


def sample(call: Call) -> float:
    """Microseconds per call, as the mean of one round."""
    began = time.perf_counter_ns()
    for n in range(CALLS):
        call(n)
    return (time.perf_counter_ns() - began) / CALLS / 1_000


def measure(rounds: int) -> None:
    contestants, absent = [], []
    for maker in MAKERS:
        try:
            contestant = maker()
            why = check(contestant)
        except Exception as error:
            contestant, why = None, f"{type(error).__name__}: {error}"
        if why is None and contestant is not None:
            contestants.append(contestant)
        else:
            absent.append(f"{maker.__name__}: {why}")
    samples: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for contestant in contestants:
        sample(contestant.call)
    gc.collect()
    for _ in range(rounds):  # in turn, so that other load on the machine affects all of them alike
        for contestant in contestants:
            samples[contestant.name].append(sample(contestant.call))
    report(contestants, samples, absent)


def report(contestants: list[Contestant], samples: dict[str, list[float]], absent: list[str]) -> None:
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    whole = medians["pointsman: decide()"]
    print(f"Python {platform.python_version()}, {platform.machine()}; microseconds per decision\n")
    print(f"{'':24} {'version':>12} {'median':>9} {'p95':>9} {'/ decide()':>11}")
    for contestant in contestants:
        taken = sorted(samples[contestant.name])
        p95 = taken[int(len(taken) * 0.95)]
        median = medians[contestant.name]
        release = released(contestant.package)
        print(f"{contestant.name:24} {release:>12} {median:9.2f} {p95:9.2f} {median / whole:10.2f}×")
    limit = medians["pointsman: evaluation"] / medians["closure by hand"]
    print(f"\nevaluation / closure: {limit:.2f}×")
    for line in absent:
        print(f"not measured: {line}")


def released(package: str | None) -> str:
    try:
        return version(package) if package else "—"
    except PackageNotFoundError:
        return "?"


# The environment


def main() -> None:
    parser = argparse.ArgumentParser(description="Time per decision, compared with feature-flag SDKs.")
    parser.add_argument("--venv", type=Path, help="a virtual environment to create or reuse")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.rounds)
        return
    with tempfile.TemporaryDirectory() as temporary:
        home = options.venv or Path(temporary)
        python = prepare(home)
        command = [str(python), __file__, "--measure", "--rounds", str(options.rounds)]
        sys.exit(subprocess.run(command, check=False).returncode)


def prepare(home: Path) -> Path:
    """Create the environment, one package at a time, so that a failing one does not prevent the others."""
    if not (home / "pyvenv.cfg").exists():
        venv.create(home, with_pip=True)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    for package in (str(CLIENT), *PACKAGES):
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{package} does not install: {done.stderr.strip().splitlines()[-1]}")
    return python


if __name__ == "__main__":
    main()
