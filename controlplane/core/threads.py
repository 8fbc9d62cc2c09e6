"""Long-running threads: a loop that survives any error in a round, and knows the age of its last success.

If one error ended the thread, the process would look healthy and do nothing: a dead watcher would serve its last
snapshot, and accept revoked keys, for ever. So only `stop` ends these loops, and their age is part of readiness.
"""

import logging
import threading
import time

from django.db import Error, connections

from controlplane.core.patience import SHORT_S, patience

log = logging.getLogger(__name__)

RETRY_S = 1.0  # after a round that failed
REPEATED_EVERY_S = 60.0  # interval between log lines about a lasting failure


class LoopThread(threading.Thread):
    """Calls `round` again and again. `wake` starts the next round at once; `stop` ends the thread after `finish`."""

    retry_s = RETRY_S
    patience_s = SHORT_S  # how long to wait for the database
    expected: tuple[type[Exception], ...] = (Error,)  # failures logged without a traceback

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._ending = threading.Event()
        self._woken = threading.Event()
        self._succeeded_at = time.monotonic()
        self._failing_since: float | None = None
        self._logged_at = 0.0

    def round(self) -> float:
        """Do what is due and return the seconds until the next round. Errors are logged and the round is retried."""
        raise NotImplementedError

    def finish(self) -> None:
        """Do the remaining work before the thread ends. May raise."""

    def age(self) -> float:
        """Return the seconds since the last successful round, or since the thread was created."""
        return time.monotonic() - self._succeeded_at

    def wake(self) -> None:
        self._woken.set()

    def stop(self, timeout: float = 30) -> bool:
        """Ask the thread to end and wait. Return False if it was still running after `timeout` seconds."""
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
            self._woken.clear()  # before the round, so that a wake-up during it is not lost
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
            close_aged_connections()
            wait = self.round()
        except Exception as error:
            self._note_failure(error)
            _close_connections()  # the next round opens a new one
            return self.retry_s
        self._succeeded_at = time.monotonic()
        if self._failing_since is not None:
            log.info("%s works again, after %.1f s", self.name, self._succeeded_at - self._failing_since)
            self._failing_since = None
        return wait

    def _note_failure(self, error: Exception) -> None:
        """Log at once, then once a minute: an outage must not fill the disk."""
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


def close_aged_connections() -> None:
    """Close this thread's connections that are older than `CONN_MAX_AGE`, as Django does after each request.

    After a failover, the former primary may go on answering, read-only and out of date. A thread that only reads
    meets no error there, and would never reach the new one.
    """
    for connection in connections.all(initialized_only=True):
        most, ends = connection.settings_dict["CONN_MAX_AGE"], connection.close_at
        if most and ends is not None and time.monotonic() >= ends and not connection.in_atomic_block:
            connection.close()


def _close_connections() -> None:
    try:
        connections.close_all()
    except Exception:
        log.debug("a broken connection could not be closed", exc_info=True)
