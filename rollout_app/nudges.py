"""Something new came in for these rollouts: look at them soon, at each only once however often it is said.

A nudge is a hint. One that is lost costs the time until the next sweep, never a decision.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

DEBOUNCE = 0.3  # seconds from a nudge to the look: what arrives in between is seen by the same look
LOOK_EVERY = 0.05  # seconds a runner sleeps at most before it sees that something is due
KEPT = 100_000  # rollouts; beyond it nudges are dropped and the sweep finds them

_lock = threading.Lock()
_wake = threading.Event()
_due: dict[str, float] = {}  # rollout id: monotonic time of its look
_listeners: list[Callable[[set[str]], None]] = []


def on_nudge(listener: Callable[[set[str]], None]) -> None:
    """Tell other processes too: called with the ids after each nudge, from the nudging thread."""
    _listeners.append(listener)


def nudge(rollout_ids: Iterable[object]) -> None:
    """Something of these rollouts was committed. Cheap, thread-safe; never raises into the caller."""
    ids = {str(rollout_id) for rollout_id in rollout_ids}
    if not ids:
        return
    note(ids)
    for listener in _listeners:
        try:
            listener(ids)
        except Exception:
            logger.exception("a nudge did not reach other processes; the next sweep will look")


def note(rollout_ids: Iterable[str]) -> None:
    """Mark them due in this process only. The first nudge sets the time: a stream can't put a look off."""
    at = time.monotonic() + DEBOUNCE
    with _lock:
        for rollout_id in rollout_ids:
            if len(_due) < KEPT:
                _due.setdefault(rollout_id, at)
    _wake.set()


def take_due() -> list[str]:
    """The rollouts whose look is due, each handed out once, longest waiting first."""
    now = time.monotonic()
    with _lock:
        ready = sorted((at, rollout_id) for rollout_id, at in _due.items() if at <= now)
        for _, rollout_id in ready:
            del _due[rollout_id]
        if not _due:
            _wake.clear()
    return [rollout_id for _, rollout_id in ready]


def run(look: Callable[[list[str]], object], stop: threading.Event) -> None:
    """The runner's loop: look at what is due until `stop`."""
    while not stop.is_set():
        if not _wake.wait(timeout=1):
            continue
        if due := take_due():
            try:
                look(due)
            except Exception:
                logger.exception("the look at %d rollouts failed; the next sweep repeats it", len(due))
        stop.wait(LOOK_EVERY)
