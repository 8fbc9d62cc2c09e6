"""Requests to evaluate rollouts soon, after new outcomes or a move. Several nudges of one rollout count once.

A nudge is a hint. Losing one delays the evaluation until the next sweep; it never changes a decision.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

DEBOUNCE = 0.3  # seconds from a nudge to the evaluation, which covers all that arrives in between
PAUSE = 0.05  # seconds between two rounds of the runner
MOST_DUE = 100_000  # rollouts; further nudges are dropped, and the sweep finds the rollouts

_lock = threading.Lock()
_wake = threading.Event()
_due: dict[str, float] = {}  # rollout id: monotonic time of its evaluation


def nudge(rollout_ids: Iterable[object]) -> None:
    """Ask for an evaluation of these rollouts, after a commit. Cheap and thread-safe.

    The first nudge sets the time, so a stream of outcomes cannot postpone the evaluation.
    """
    at = time.monotonic() + DEBOUNCE
    ids = [str(rollout_id) for rollout_id in rollout_ids]
    if not ids:
        return
    with _lock:
        for rollout_id in ids:
            if len(_due) < MOST_DUE:
                _due.setdefault(rollout_id, at)
    _wake.set()


def take_due() -> list[str]:
    """Return the rollouts that are due, longest waiting first, and remove them from the list."""
    now = time.monotonic()
    with _lock:
        ready = sorted((at, rollout_id) for rollout_id, at in _due.items() if at <= now)
        for _, rollout_id in ready:
            del _due[rollout_id]
        if not _due:
            _wake.clear()
    return [rollout_id for _, rollout_id in ready]


def run(evaluate: Callable[[list[str]], object], stop: threading.Event) -> None:
    """Run until `stop` is set: evaluate rollouts as they become due."""
    while not stop.is_set():
        if not _wake.wait(timeout=1):
            continue
        if due := take_due():
            try:
                evaluate(due)
            except Exception:
                logger.exception("the evaluation of %d rollouts failed; the next sweep repeats it", len(due))
        stop.wait(PAUSE)
