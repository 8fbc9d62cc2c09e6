"""A preloading server like gunicorn's: `prefork_process.py <url> <workers>`. The master creates the router, forks
workers, and replaces each one that dies; SIGTERM stops them all.

Each worker prints its process id when it starts. It exits normally, so that exit handlers run.
"""

import os
import signal
import sys
import time
from types import FrameType

from pointsman import Pace, Router

router: Router
ending = False


def work() -> None:
    """Serve until SIGTERM: one task every few milliseconds, with this worker's own endpoint."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # One write per line: with PYTHONUNBUFFERED, print() makes two, and lines of several workers would mix.
    os.write(sys.stdout.fileno(), f"{os.getpid()}\n".encode())
    while True:
        decision = router.decide("summaries", {"endpoint": f"/{os.getpid()}"})
        router.record(decision, success=True, cost_nusd=1_000)
        time.sleep(0.005)


def fork() -> int:
    """Fork a worker. Return its process id."""
    pid = os.fork()
    if not pid:
        work()
    return pid


def main(url: str, workers: int) -> None:
    """Keep this many workers running until SIGTERM."""
    global router
    router = Router(url, "pmr_test", pace=Pace(first_poll_within=0, flush_every=0.1))
    if not router.wait_ready(60):
        sys.exit(1)
    running = {fork() for _ in range(workers)}

    def end(*_: int | FrameType | None) -> None:
        global ending
        ending = True
        for pid in running:
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    while running:
        pid, _ = os.wait()
        running.discard(pid)
        if not ending:
            running.add(fork())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
