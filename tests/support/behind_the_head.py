"""Writers that line up: each has taken its locks and waits, and then all go on. No luck is needed to see a deadlock."""

import threading
import time
from collections.abc import Callable, Sequence

from django.db import connection, transaction

from controlplane.audit import log

Errors = list[BaseException | None]


def behind_the_head(*works: Callable[[], object]) -> Errors:
    """Hold the head of the audit log, start each work once the earlier ones wait for a lock, then let go of it.

    Return what each one raised, in their order. SQLite has one writer, so there they only wait for their turn.
    """
    errors: Errors = [None] * len(works)

    def run(number: int) -> None:
        try:
            works[number]()
        except BaseException as error:
            errors[number] = error
        finally:
            connection.close()

    threads: list[threading.Thread] = []
    with transaction.atomic():
        log.locked_head()
        for number in range(len(works)):
            threads.append(threading.Thread(target=run, args=(number,)))
            threads[-1].start()
            _until_they_wait(threads)
    for thread in threads:
        thread.join()
    return errors


def _until_they_wait(threads: Sequence[threading.Thread]) -> None:
    """Return when each thread has ended or waits for a lock, or after ten seconds."""
    end = time.monotonic() + 10
    while connection.vendor == "postgresql" and time.monotonic() < end:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0] >= sum(thread.is_alive() for thread in threads):
                return
        time.sleep(0.02)
