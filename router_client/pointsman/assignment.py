"""What one environment currently serves for one workload, compiled and ready for decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pointsman.comparison import Comparison
from pointsman.errors import SnapshotRefused
from pointsman.evaluate import CompiledPolicy, Route, compile_policy
from pointsman.policy.canonical import digest

__all__ = ["Compile", "Rollout", "Side", "WorkloadAssignment", "compile_checked"]

Compile = Callable[[str, Mapping[str, Any]], CompiledPolicy]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One arm of an assignment: its version and its compiled policy. Compared by identity."""

    arm: str
    version: int
    digest: str
    policy: CompiledPolicy
    label: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """The running rollout, as described by the snapshot.

    Shares are per 100,000; the cap is in nano-US-dollars per task.
    """

    id: str
    stage: int
    mode: str
    share_pcm: int
    salt: str
    mirror_pcm: int = 0
    cost_cap_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class WorkloadAssignment:
    """One workload entry of a snapshot. Immutable; a new revision is a new object.

    comparison   compares the two policies in shadow and at a percentage; otherwise None
    """

    name: str
    environment: str
    revision: int
    unit: str
    baseline: Side
    candidate: Side | None = None
    rollout: Rollout | None = None
    pin: str | None = None
    pin_reason: str = ""
    pinned: Route | None = None
    comparison: Comparison | None = None

    @property
    def place(self) -> tuple[str | None, int | None]:
        """The rollout's id and stage, to which tasks are reported; None outside a rollout and under a pin.

        Pinned tasks are no comparison of two policies, and all of one arm: the split would seem wrong.
        """
        if self.rollout is None or self.pinned is not None:
            return None, None
        return self.rollout.id, self.rollout.stage

    @classmethod
    def build(
        cls, name: str, entry: Mapping[str, Any], *, environment: str = "", compiled: Compile | None = None
    ) -> WorkloadAssignment:
        """Build from a snapshot's entry. `compiled(digest, policy)` compiles a policy or returns a cached one.

        Raises `PolicyInvalid` for an invalid document and `SnapshotRefused` for a malformed entry.
        """
        make = compiled or compile_checked
        try:
            baseline = _side("baseline", entry["baseline"], make)
            candidate = _side("candidate", entry["candidate"], make) if entry.get("candidate") else None
            rollout = _rollout(entry["rollout"]) if entry.get("rollout") else None
            pin, why = (
                (entry["pin"]["model"], entry["pin"].get("reason", "")) if entry.get("pin") else (None, "")
            )
            return cls(
                name, environment, int(entry["revision"]), str(entry["unit"]), baseline, candidate, rollout,
                pin, why, _pinned(baseline.policy, pin, why), _comparison(baseline, candidate, rollout),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SnapshotRefused("malformed", f"workload {name}: {type(error).__name__}: {error}") from error


def compile_checked(expected: str, data: Mapping[str, Any]) -> CompiledPolicy:
    """Compile a document after checking it against its digest."""
    if (actual := digest(data)) != expected:
        raise SnapshotRefused(
            "digest_mismatch", f"the policy's digest is {actual}, but the snapshot says {expected}"
        )
    return compile_policy(data)


def _side(arm: str, entry: Mapping[str, Any], make: Compile) -> Side:
    version = int(entry["version"])
    return Side(
        arm, version, entry["digest"], make(entry["digest"], entry["policy"]), f"{arm}, version {version}"
    )


def _rollout(entry: Mapping[str, Any]) -> Rollout:
    if entry["mode"] not in ("shadow", "percentage", "full"):
        raise ValueError(f"unknown rollout mode {entry['mode']!r}")
    cap = entry.get("cost_cap_nusd")
    return Rollout(
        id=str(entry["id"]),
        stage=int(entry["stage"]),
        mode=entry["mode"],
        share_pcm=int(entry["share_pcm"]),
        salt=str(entry["salt"]),
        mirror_pcm=int(entry.get("mirror_pcm") or 0),
        cost_cap_nusd=None if cap is None else int(cap),
    )


def _comparison(baseline: Side, candidate: Side | None, rollout: Rollout | None) -> Comparison | None:
    if candidate is None or rollout is None or rollout.mode == "full":
        return None
    return Comparison(baseline.policy, candidate.policy)


def _pinned(policy: CompiledPolicy, pin: str | None, why: str) -> Route | None:
    """Return the route of a pin, which names a model as the policy or as the catalogue does; None without a pin."""
    if pin is None:
        return None
    name, params = policy.models.get(pin, (pin, cast("Mapping[str, Any]", {})))
    sentence = f"pinned to {pin}" + (f": {why}" if why else "")
    return Route("pin", pin, name, params, (), sentence, False)
