"""Known workloads, versions and rollouts. Looked up once and then remembered, because none is ever deleted."""

import time
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from policies_app.models import PolicyVersion, Workload
from rollout_app.engine.states import State
from rollout_app.models import Rollout, Transition
from rollout_app.outcomes.schemas import FEEDBACK_KINDS

SIGNALS_EVERY_S = 10  # seconds between reads, because a workload's success signal may change


class KnownRollout(NamedTuple):
    environment: int
    workload: int
    versions: dict[str, int]  # arm → the version's number
    stages: int


class Named(Protocol):
    """Something that names a workload and its version, arm, rollout and stage: a bucket, an event or a decision."""

    @property
    def workload(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def arm(self) -> str: ...
    @property
    def rollout(self) -> str | None: ...
    @property
    def stage(self) -> int | None: ...


class KnownNames:
    """The names known to one process. The event loop reads them; `load` runs in a thread and only adds."""

    def __init__(self) -> None:
        self.workloads: dict[str, int] = {}
        self.signals: dict[str, str] = {}
        self._signals_read = 0.0  # monotonic time
        self._versions: dict[int, set[int]] = {}
        self._rollouts: dict[str, KnownRollout] = {}
        # Full names that passed every check: at most as many as there are versions and stages.
        self._confirmed: set[tuple[int, str, int, str, str | None, int | None]] = set()

    def is_confirmed(self, environment: int, item: Named) -> bool:
        """Return whether the full name passed before. If not, `problem` checks it."""
        return (
            environment, item.workload, item.version, item.arm, item.rollout, item.stage,
        ) in self._confirmed  # fmt: skip

    def unresolved(self, wanted: Iterable[Named]) -> list[Named]:
        """Return the items that must be looked up in the database."""
        return [item for item in wanted if self._is_unresolved(item)]

    def _is_unresolved(self, item: Named) -> bool:
        pk = self.workloads.get(item.workload)
        if pk is None or item.version not in self._versions[pk]:
            return True
        return item.rollout is not None and item.rollout not in self._rollouts

    def load(self, wanted: list[Named]) -> None:
        # PostgreSQL rejects text with a NUL, and no name contains one.
        names = {item.workload for item in wanted if "\0" not in item.workload}
        rows = Workload.objects.filter(name__in=names).values_list("name", "pk", "success_signal")
        pks = {name: pk for name, pk, _ in rows}
        self.signals.update((name, signal) for name, _, signal in rows)
        versions: dict[int, set[int]] = {pk: set() for pk in pks.values()}
        for pk, number in PolicyVersion.objects.filter(workload__in=versions).values_list(
            "workload", "number"
        ):
            versions[pk].add(number)
        # Only started ones: until then a rollout has no outcomes, and its baseline and its stages may change.
        rollouts = Rollout.objects.filter(
            pk__in={uuid for item in wanted if (uuid := _uuid(item.rollout))}, started_at__isnull=False
        )
        for rollout in rollouts.select_related("baseline", "candidate"):
            arms = {"baseline": rollout.baseline.number, "candidate": rollout.candidate.number}
            known = KnownRollout(rollout.environment_id, rollout.workload_id, arms, len(rollout.stages))
            self._rollouts[str(rollout.pk)] = known
        self._versions.update(versions)  # before the names, because the event loop looks these up by name
        self.workloads.update(pks)

    def graded_by_record(self, workload: str) -> bool:
        """Return whether the router's record grades a task; otherwise a kind of feedback does."""
        return self.signals[workload] not in FEEDBACK_KINDS

    def signals_are_due(self) -> bool:
        """Return whether to read the signals again. True only once per interval."""
        now = time.monotonic()
        if now - self._signals_read < SIGNALS_EVERY_S:
            return False
        self._signals_read = now
        return True

    def load_signals(self) -> None:
        self.signals.update(Workload.objects.values_list("name", "success_signal"))

    def cost_caps(self, rollouts: Collection[str]) -> dict[str, int | None]:
        """Return the current caps in nano-USD by rollout. Not cached: a cap is measured while the rollout is in
        shadow.
        """
        rows = Rollout.objects.filter(pk__in=rollouts).values_list("pk", "reference__cost_cap_nusd")
        return {str(pk): cap for pk, cap in rows}

    def stages_over_time(self, rollouts: Collection[str]) -> dict[str, list[tuple[datetime, int | None]]]:
        """Return (since, stage) by rollout from its start on, oldest first; None where it is not under way."""
        found: dict[str, list[tuple[datetime, int | None]]] = {}
        rows = Transition.objects.filter(rollout__pk__in=rollouts).order_by("rollout", "sequence")
        for pk, at, state, stage in rows.values_list("rollout", "at", "after_state", "after_stage"):
            moving = state in (State.RUNNING, State.PAUSED)
            if moving or str(pk) in found:
                found.setdefault(str(pk), []).append((at, stage if moving else None))
        return found

    def problem(self, environment: int, item: Named) -> tuple[str, str] | None:
        """Return (field, sentence) for the first part of the name that does not exist, or None."""
        found = self._find_problem(environment, item)
        if found is None:
            self._confirmed.add(
                (environment, item.workload, item.version, item.arm, item.rollout, item.stage)
            )
        return found

    def _find_problem(self, environment: int, item: Named) -> tuple[str, str] | None:
        pk = self.workloads.get(item.workload)
        if pk is None:
            return "workload", f"there is no workload {item.workload!r}"
        if item.version not in self._versions[pk]:
            return "version", f"{item.workload} has no version {item.version}"
        if item.rollout is None:
            return None
        rollout = self._rollouts.get(item.rollout)
        if rollout is None or (rollout.environment, rollout.workload) != (environment, pk):
            return "rollout", f"{item.workload} has no rollout {item.rollout!r} in this environment"
        if rollout.versions[item.arm] != item.version:
            return "version", f"the {item.arm} of that rollout is version {rollout.versions[item.arm]}"
        if item.stage is not None and item.stage >= rollout.stages:
            return "stage", f"that rollout has {rollout.stages} stages, counted from 0"
        return None


def _uuid(text: str | None) -> UUID | None:
    try:
        uuid = UUID(text or "")
    except ValueError:
        return None
    return uuid if str(uuid) == text else None
