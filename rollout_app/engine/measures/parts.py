"""The parts of a guardrail's evidence: all tasks since the start, since each of three later stages, and slices."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from rollout_app.engine.measures.base import ALL, RESTARTS, HarmPart, Tuning, since
from rollout_app.engine.measures.sufficient import MissingStatistics


class _Part(Protocol):
    missing: MissingStatistics

    def dump(self) -> dict[str, Any]: ...


P = TypeVar("P", bound=_Part)


class Parted(ABC, Generic[P]):
    """Holds the parts by name. For each stage in `restarts`, one part counts harm only from that stage on."""

    def __init__(self, restarts: Sequence[int], tuning: Tuning) -> None:
        self.restarts = tuple(restarts)[:RESTARTS]
        self.tuning = tuning
        self.parts: dict[str, P] = {ALL: self._new_part()}

    @abstractmethod
    def _new_part(self) -> P: ...

    @property
    def whole(self) -> P:
        return self.parts[ALL]

    def _part(self, name: str) -> P:
        part = self.parts.get(name)
        if part is None:
            part = self.parts[name] = self._new_part()
        return part

    def miss(self, candidate: int, baseline: int, alone: int | None = None) -> None:
        """Count tasks of both arms as missing that came too late to be judged and were not expected.

        alone  the stage, if no baseline ran in it: its own part counts them, too
        """
        self.whole.missing.add_later(candidate, baseline)
        if alone is not None and (part := self.parts.get(since(alone))):
            part.missing.add_later(candidate, baseline)

    def dump(self) -> dict[str, Any]:
        return {name: part.dump() for name, part in self.parts.items()}

    def _restarted(self, one: Callable[[str, float], HarmPart]) -> list[HarmPart]:
        """Return the parts since later stages. Stages that have not begun share one part without evidence."""
        weight = self.tuning.restart
        begun = [one(since(at), weight) for at in self.restarts if since(at) in self.parts]
        waiting = [HarmPart("later", weight * (RESTARTS - len(begun)), 0.0)] if len(begun) < RESTARTS else []
        return [part for part in [*begun, *waiting] if part.weight > 0]
