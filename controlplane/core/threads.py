"""Threads that go on: a loop that outlives whatever one of its rounds raises, and says how old its last success is.

A thread that dies of one bad moment leaves a process that looks well and does nothing: a dead watcher serves its last
snapshot, and revoked keys, for ever. So nothing ends these loops but `stop`, and their age is part of readiness.
"""

import logging
import threading
import time

from django.db import Error, connections

from controlplane.core.patience import SHORT_S, patience

log = logging.getLogger(__name__)

RETRY_S = 1.0  # after a round that failed
REPEATED_EVERY_S = 60.0  # a failure that lasts is logged so often


class LoopThread(threading.Thread):
    """Runs `round` again and again. `wake` makes the next one come at once, `stop` ends the thread after `finish`."""

    retry_s = RETRY_S
    patience_s = SHORT_S  # for an answer of the database
    expected: tuple[type[Exception], ...] = (Error,)  # failures that a sentence tells, without a traceback

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._ending = threading.Event()
        self._woken = threading.Event()
        self._succeeded_at = time.monotonic()
        self._failing_since: float | None = None
        self._logged_at = 0.0

    def round(self) -> float:
        """Do what is due; returns the seconds until the next round. Whatever it raises is logged and tried again."""
        raise NotImplementedError

    def finish(self) -> None:
        """What is left to do when the thread is asked to end. It may raise."""

    def age(self) -> float:
        """Seconds since a round last succeeded, or since the thread was made."""
        return time.monotonic() - self._succeeded_at

    def wake(self) -> None:
        self._woken.set()

    def stop(self, timeout: float = 30) -> bool:
        """Ask it to end, and wait; False when it was still at work after `timeout` seconds."""
        self.request_stop()
        if self.ident is not None:
            self.join(timeout)
        return not self.is_alive()

    def request_stop(self) -> None:
        self._ending.set()
        self._woken.set()

    def run(self) -> None:
        with patience(self.patience_s):
            self._run()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._woken.clear()  # before the round: what wakes it meanwhile is seen by the next
            wait = self._try_round()
            if not self._ending.is_set():
                self._woken.wait(wait)
        try:
            self.finish()
        except Exception:
            log.exception("%s could not finish its work", self.name)
        _close_connections()

    def _try_round(self) -> float:
        try:
            wait = self.round()
        except Exception as error:
            self._note_failure(error)
            _close_connections()  # the next round begins with a new one
            return self.retry_s
        self._succeeded_at = time.monotonic()
        if self._failing_since is not None:
            log.info("%s works again, after %.1f s", self.name, self._succeeded_at - self._failing_since)
            self._failing_since = None
        return wait

    def _note_failure(self, error: Exception) -> None:
        """At once, then once a minute: an outage must not fill the disk."""
        now, first = time.monotonic(), self._failing_since is None
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._logged_at < REPEATED_EVERY_S:
            return
        self._logged_at = now
        traceback = error if first and not isinstance(error, self.expected) else None
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        lasting = now - self._failing_since
        log.warning("%s fails, for %.0f s now: %s", self.name, lasting, text, exc_info=traceback)


def _close_connections() -> None:
    try:
        connections.close_all()
    except Exception:
        log.debug("a broken connection could not be closed", exc_info=True)
