"""Stop mirroring while the candidate's model fails, hangs or is slow.

Mirrored requests serve nobody, so they must not burden the router. A hanging request is noticed only because it
does not end. When too many requests are under way, or too many of the last ones failed or were slow, mirroring of
that rollout stops for a while. Then it is tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from pointsman.errors import ConfigurationError
from pointsman.logs import log
from pointsman.recent import Recent

__all__ = ["MirrorBrake"]


class _Mirrors:
    """One rollout: the last results (True: failed or slow), the tasks under way, and when mirroring resumes."""

    __slots__ = ("ends", "until", "under_way")

    def __init__(self, over: int) -> None:
        self.ends: deque[bool] = deque(maxlen=over)
        self.under_way: set[str] = set()
        self.until: float | None = None


class MirrorBrake:
    """Decides when mirroring stops, and for how long.

    over        number of a rollout's last mirrors to look at; with fewer results mirroring does not stop
    bad_share   0 … 1: mirroring stops at this share of failed or slow mirrors
    slowest_ms  a mirror that takes longer counts as slow
    under_way   maximum number of mirrors that have started and are not yet recorded
    rest_s      how long mirroring stops before it is tried again
    clock       returns seconds, for tests

    Takes no lock: two threads may allow one extra mirror, or log the same message twice. The methods never raise.
    """

    def __init__(
        self,
        *,
        over: int = 20,
        bad_share: float = 0.5,
        slowest_ms: float = 60_000,
        under_way: int = 100,
        rest_s: float = 300,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if over < 1 or not 0 < bad_share <= 1 or not slowest_ms > 0 or under_way < 1 or not rest_s > 0:
            raise ConfigurationError(
                "a mirror brake requires over >= 1, under_way >= 1, 0 < bad_share <= 1, slowest_ms > 0 and rest_s > 0; "
                f"got over={over!r}, under_way={under_way!r}, bad_share={bad_share!r}, slowest_ms={slowest_ms!r}, "
                f"rest_s={rest_s!r}"
            )
        self._over, self._share, self._slowest_ms = over, bad_share, slowest_ms
        self._under_way, self._rest_s, self._clock = under_way, rest_s, clock
        self._rollouts: Recent[str, _Mirrors] = Recent(1_000)
        self._braked: dict[str, tuple[str, float]] = {}

    @property
    def braked(self) -> list[str]:
        """Workloads whose mirroring is currently stopped."""
        now = self._clock()
        return sorted({workload for workload, until in list(self._braked.values()) if now < until})

    def lets(self, rollout: str, workload: str, task: str) -> bool:
        """Return whether this task may be mirrored. Call it once per task, which then counts as under way."""
        mirrors = self._rollouts.get(rollout) or self._rollouts.put(rollout, _Mirrors(self._over))
        if mirrors.until is not None:
            if self._clock() < mirrors.until:
                return False
            self._release(mirrors, rollout, workload)
        if len(mirrors.under_way) >= self._under_way:
            why = f"{len(mirrors.under_way)} are under way and have not ended"
            self._stop(mirrors, rollout, workload, why)
            return False
        mirrors.under_way.add(task)
        return True

    def ended(
        self, rollout: str, workload: str, task: str, *, failed: bool | None, latency_ms: float | None
    ) -> None:
        """Record the end of a task. With `failed` None and no latency, the result of its mirror is unknown."""
        mirrors = self._rollouts.get(rollout)
        if mirrors is None or task not in mirrors.under_way:
            return
        mirrors.under_way.discard(task)
        slow = latency_ms is not None and latency_ms > self._slowest_ms
        if failed is None and latency_ms is None:
            return
        mirrors.ends.append(bool(failed) or slow)
        bad, seen = sum(mirrors.ends), len(mirrors.ends)
        if seen >= self._over and bad >= self._share * seen and mirrors.until is None:
            why = f"{bad} of the last {seen} failed or took longer than {self._slowest_ms:g} ms"
            self._stop(mirrors, rollout, workload, why)

    def _stop(self, mirrors: _Mirrors, rollout: str, workload: str, why: str) -> None:
        mirrors.until = until = self._clock() + self._rest_s
        self._braked[rollout] = (workload, until)
        log.warning("%s: mirroring stops for %g s: %s", workload, self._rest_s, why)

    def _release(self, mirrors: _Mirrors, rollout: str, workload: str) -> None:
        mirrors.until = None
        mirrors.ends.clear()
        mirrors.under_way.clear()
        self._braked.pop(rollout, None)
        log.info("%s: mirroring resumes", workload)
