"""The estimate from a task log: are its intervals right, and what does a million lines cost?

`python benchmarks/drawn.py [RUNS]`: logs are simulated with a known truth, and with an outcome model that sees a random
number instead of the task's difficulty (`tests/support/drawn.py`). For each log and figure, prints the share of 95 %
intervals that cover the truth, and the mean error.

`python benchmarks/drawn.py --lines 1000000 [FOLDER]`: processor seconds and peak memory (ru_maxrss) of a fresh process
that reads a task log of so many lines and compares two policies. Every line is a unit of its own, which is the largest
case; half of the tasks were drawn for each arm. The folder keeps the log for another run.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rollout_app.backtest.doubly_robust import change_of, value_of
from rollout_app.backtest.report import agreement_text
from rollout_app.backtest.single_log import against_log
from rollout_app.backtest.sources import Source
from tests.support.drawn import DrawnLog

LOGS = {
    "a fifth, 2,000 tasks": DrawnLog(2_000, 0.2),
    "a twentieth, 2,000 tasks": DrawnLog(2_000, 0.05),
    "a hundredth, 5,000 tasks": DrawnLog(5_000, 0.01),
    "units of 10 tasks, rates ± 15 points": DrawnLog(4_000, 0.25, (0.75, 0.7), per_unit=10, unlike=0.15),
    "30 % of the candidate's grades missing": DrawnLog(2_000, 0.2, ungraded=(0.02, 0.3)),
    "98.5 % succeed": DrawnLog(1_500, 0.2, (0.99, 0.985)),
    "half of the tasks, 400": DrawnLog(400, 0.5),
}
SMALL, LARGE = "vendor/small", "vendor/large"
BASELINE: dict[str, Any] = {
    "format": 1, "workload": "measured", "models": {"small": {"model": SMALL}, "large": {"model": LARGE}},
    "default": "large", "fallback": ["large", "small"],
}  # fmt: skip
CANDIDATE = {
    **BASELINE, "default": "small",
    "rules": [{"id": "long", "when": "request.prompt_tokens > 3000", "use": "large"}],
}  # fmt: skip


def main(runs: int) -> None:
    for name, log in LOGS.items():
        covered, error = dict.fromkeys(log.truth, 0), dict.fromkeys(log.truth, 0.0)
        for seed in range(runs):
            ours, theirs = log.draw(10_000 + seed)
            for figure, found in log.figures(value_of(ours), change_of(ours, theirs)).items():
                known = found.low is not None and found.high is not None
                covered[figure] += known and found.low <= log.truth[figure] <= found.high  # type: ignore[operator]
                error[figure] += ((found.value or 0.0) - log.truth[figure]) / runs
        told = ", ".join(
            f"{figure} {count / runs:.1%} ({error[figure] / abs(log.truth[figure]):+.2%})"
            for figure, count in covered.items()
        )
        print(f"{name}: {told}", flush=True)


def write_log(path: Path, lines: int) -> None:
    chance = random.Random(7)
    with path.open("w") as file:
        for at in range(lines):
            tokens, ours = chance.randrange(50, 4_000), chance.random() < 0.5
            first = {12: LARGE, 13: LARGE if tokens > 3_000 else SMALL}
            version, other = (13, 12) if ours else (12, 13)
            asked = first[version]
            cost = tokens * (24_700 if asked == LARGE else 240)
            confidence = round(chance.random(), 3)
            line = {
                "task_log": 1, "at": 1_790_000_000 + at / 10, "environment": "production", "workload": "measured",
                "decision": f"{at:022x}", "unit": f"{at * 7_919:016x}", "arm": "candidate" if ours else "baseline",
                "version": version, "propensity": 0.5,
                "differing": "" if first[12] == first[13] else f"{LARGE}>{SMALL}",
                "rule": "default", "model": asked,
                "request": {"endpoint": chance.choice(("/search", "/chat", "/mail")), "prompt_tokens": tokens},
                "attempts": [{"model": asked, "cost_nusd": cost, "latency_ms": 400.0, "confidence": confidence}],
                "answered": asked, "success": chance.random() < (0.9 if asked == LARGE else 0.88), "quality": None,
                "confidence": confidence, "cost_nusd": cost, "latency_ms": 400.0, "error": None, "escalations": 0,
                "fallbacks": 0, "retries": 0, "rollout": "0192", "stage": 2, "mode": "percentage",
                "share_pcm": 50_000, "other": {"version": other, "model": first[other]},
            }  # fmt: skip
            file.write(json.dumps(line, separators=(",", ":")) + "\n")


def estimate(path: Path) -> None:
    """Print what this process used, and the change compared with v12."""
    began = time.monotonic()
    documents = {"v12": BASELINE, "v13": CANDIDATE}
    found = against_log(documents, Source(str(path), log="pointsman"), {12: BASELINE, 13: CANDIDATE})
    seconds, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{path.stat().st_size / 1e6:.0f} MB of log: {seconds:.1f} s by the clock, "
        f"{used.ru_utime + used.ru_stime:.1f} s of processor, {used.ru_maxrss / 1_000:.0f} MB"
    )
    print(agreement_text("v13", found["v13"]))


def measure(lines: int, home: Path) -> None:
    path = home / f"{lines}.jsonl"
    if not path.exists():
        write_log(path, lines)
    # A fresh process, because peak memory includes everything before.
    subprocess.run([sys.executable, __file__, "--estimate", str(path)], check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--estimate", path]:
            estimate(Path(path))
        case ["--lines", lines, folder]:
            measure(int(lines), Path(folder))
        case ["--lines", lines]:
            with tempfile.TemporaryDirectory() as folder:
                measure(int(lines), Path(folder))
        case [runs]:
            main(int(runs))
        case _:
            main(500)
