"""New outcomes or a move of these rollouts: evaluate each soon, and once however often it is nudged.

A nudge is a hint. A lost one costs the time until the next sweep, never a decision.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

DEBOUNCE = 0.3  # seconds from a nudge to the evaluation: what arrives in between is seen by the same one
PAUSE = 0.05  # seconds between two rounds of the runner
MOST_DUE = 100_000  # rollouts; beyond that nudges are dropped and the sweep finds them

_lock = threading.Lock()
_wake = threading.Event()
_due: dict[str, float] = {}  # rollout id: monotonic time of its evaluation


def nudge(rollout_ids: Iterable[object]) -> None:
    """Something of these rollouts was committed. Cheap and thread-safe.

    The first nudge sets the time, so a stream of outcomes cannot put the evaluation off.
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
    """The rollouts whose evaluation is due, each handed out once, longest waiting first."""
    now = time.monotonic()
    with _lock:
        ready = sorted((at, rollout_id) for rollout_id, at in _due.items() if at <= now)
        for _, rollout_id in ready:
            del _due[rollout_id]
        if not _due:
            _wake.clear()
    return [rollout_id for _, rollout_id in ready]


def run(evaluate: Callable[[list[str]], object], stop: threading.Event) -> None:
    """The runner's loop: evaluate what is due until `stop`."""
    while not stop.is_set():
        if not _wake.wait(timeout=1):
            continue
        if due := take_due():
            try:
                evaluate(due)
            except Exception:
                logger.exception("the evaluation of %d rollouts failed; the next sweep repeats it", len(due))
        stop.wait(PAUSE)
