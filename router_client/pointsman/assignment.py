"""What one environment serves for one workload now, ready to decide with."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pointsman.bucketing import bucket, mirrored
from pointsman.decision import Decision
from pointsman.errors import SnapshotRefused
from pointsman.evaluate import CompiledPolicy, Route, compile_policy
from pointsman.policy.canonical import digest

if TYPE_CHECKING:
    from pointsman.history import FailureHistory, LatchMemory

__all__ = ["Compile", "Rollout", "Side", "WorkloadAssignment", "compile_checked"]

Compile = Callable[[str, Mapping[str, Any]], CompiledPolicy]
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Side:
    """One arm: its version and its compiled policy."""

    arm: str
    version: int
    digest: str
    policy: CompiledPolicy
    label: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """The running rollout as the snapshot tells it.

    Shares are per 100,000, the cap is nano-US-dollars per task.
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
    """One workload entry of a snapshot. Never changes; a new revision is a new object."""

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

    @classmethod
    def build(
        cls, name: str, entry: Mapping[str, Any], *, environment: str = "", compiled: Compile | None = None
    ) -> WorkloadAssignment:
        """Build from a snapshot's entry. `compiled(digest, policy)` compiles, or answers from a cache.

        Raises `PolicyInvalid` for a document that must not run and `SnapshotRefused` for an entry that is not
        one.
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
                pin, why, _pinned(baseline.policy, pin, why),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SnapshotRefused("malformed", f"workload {name}: {type(error).__name__}: {error}") from error

    def decide(
        self,
        request: Mapping[str, Any] | None,
        unit_ids: Mapping[str, str] | None = None,
        *,
        history: FailureHistory | None = None,
        latch: LatchMemory | None = None,
        available: Container[str] | None = None,
    ) -> Decision:
        """Choose the model for one task. Never raises, takes no lock, touches no network.

        request    the `request.*` inputs: `{"prompt_tokens": 12, "attributes": {…}}`, what is known of them
        unit_ids   ids by kind: `request`, `conversation`, `user`, `tenant`
        history    the process's failure history, for policies that ask for it
        latch      the process's memory of escalated conversations
        available  catalogue names that can be called; for a choice outside `guard.on_unknown_model` answers
        """
        decision = Decision(self, self.baseline, _given(request), _given(unit_ids), latch)
        try:
            self._choose(decision, history)
            if latch is not None or available is not None:
                self._override(decision, latch, available)
        except Exception as error:  # The caller's request must not fail because routing did.
            decision.side = self.baseline
            decision.route = self.baseline.policy.broken(error)
        return decision

    def _choose(self, decision: Decision, history: FailureHistory | None) -> None:
        if self.pinned is not None:
            decision.route = self.pinned
            return
        rollout, candidate = self.rollout, self.candidate
        if rollout is not None and candidate is not None:
            if rollout.mode == "percentage":
                decision._bucket = bucket(rollout.salt, decision.unit)
                if decision._bucket < rollout.share_pcm:
                    decision.side = candidate
            elif rollout.mode == "full":
                decision.side = candidate
            else:
                decision.shadow = _route(candidate.policy, decision, history)
                decision.mirror = mirrored(rollout.mirror_pcm, rollout.salt, decision.unit)
        decision.route = _route(decision.side.policy, decision, history)

    def _override(
        self, decision: Decision, latch: LatchMemory | None, available: Container[str] | None
    ) -> None:
        if self.pinned is not None:
            return
        policy = decision.side.policy
        conversation = decision.unit_ids.get("conversation")
        if latch is not None and policy.latched is not None and conversation is not None:
            stronger = policy.stronger(policy.latched.alias, decision.route.alias)
            if stronger and latch.holds(self.name, str(conversation)):
                decision.route = policy.latched
        if available is not None and decision.route.model not in available:
            decision.route = policy.unknown_model(decision.route)


def _given(values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the caller gave, if it is a mapping; nothing is known otherwise."""
    if type(values) is dict:
        return values
    try:
        return values if isinstance(values, Mapping) else _NOTHING
    except Exception:  # A proxy object whose target is gone cannot even say what it is.
        return _NOTHING


def _route(policy: CompiledPolicy, decision: Decision, history: FailureHistory | None) -> Route:
    if history is None or not policy.uses_history:
        return policy.route(decision.request)
    decision._history = history.window(decision.workload, decision.endpoint)
    return policy.route(decision.request, decision._history)


def compile_checked(expected: str, data: Mapping[str, Any]) -> CompiledPolicy:
    """Compile a document after making sure that it is the one its digest names."""
    if (actual := digest(data)) != expected:
        raise SnapshotRefused(
            "digest_mismatch", f"the policy's digest is {actual}, the snapshot says {expected}"
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


def _pinned(policy: CompiledPolicy, pin: str | None, why: str) -> Route | None:
    """A pin may name a model as the policy does, or as the catalogue does."""
    if pin is None:
        return None
    name, params = policy.models.get(pin, (pin, cast("Mapping[str, Any]", {})))
    sentence = f"pinned to {pin}" + (f": {why}" if why else "")
    return Route("pin", pin, name, params, (), sentence, False)
