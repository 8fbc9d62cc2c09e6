"""24 people sign in at once, repeatedly, while a script uses the API. How long do both wait?

    python benchmarks/sign_ins.py [rounds]    default: 5

The server is `manage.py serve` on SQLite with one worker, on all cores, because one password hash uses several. Each
person has a separate browser. The script lists the API's keys, one request after the other, with and without the
crowd. `rss` is the largest resident memory of the server's processes, read ten times a second.
"""

import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, table

PEOPLE = 24
PASSWORD = "a long enough word"  # noqa: S105
QUIET_S = 5.0  # of the API alone


def main(rounds: int) -> None:
    os.environ.update(SIGN_IN_LIMIT="1000000", API_LIMIT="0")  # all requests come from one address
    instance.prepare()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    key = _people_and_key()
    with _server() as (url, rss):
        asked = Asked(url, key)
        for _ in range(10):
            asked.once()  # warm-up: some modules are loaded on first use
        alone = asked.until(lambda began: time.perf_counter() - began > QUIET_S)
        before = rss()
        crowd: list[float] = []
        with ThreadPoolExecutor(1) as background:
            most = background.submit(_most, rss, done := threading.Event())
            meanwhile: list[float] = []
            for _ in range(rounds):
                taken, among = _crowd(url, asked)
                crowd += taken
                meanwhile += among
            done.set()
        rows = [
            ["API alone, ms", *_quantiles(alone)],
            ["API while 24 sign in, ms", *_quantiles(meanwhile)],
            ["a sign-in among 24, ms", *_quantiles(crowd)],
        ]
    table.show(f"{rounds} crowds of {PEOPLE}", ["", "p50", "p95", "worst", "requests"], rows)
    print(f"server's memory: {before / 2**20:,.0f} MB before, {most.result() / 2**20:,.0f} MB at most")


class Asked:
    """A script that uses the API with its key."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)

    def once(self) -> float:
        began = time.perf_counter()
        self._client.get("/api/v1/keys").raise_for_status()
        return (time.perf_counter() - began) * 1e3

    def until(self, over) -> list[float]:  # type: ignore[no-untyped-def]
        began, taken = time.perf_counter(), []
        while not over(began):
            taken.append(self.once())
        return taken


def _crowd(url: str, asked: Asked) -> tuple[list[float], list[float]]:
    """Return how long each of the 24 waited, and each API request until the last one had signed in."""
    browsers = [httpx.Client(base_url=url, timeout=120) for _ in range(PEOPLE)]
    for browser in browsers:
        browser.get("/console/login/").raise_for_status()
    together = threading.Barrier(PEOPLE)

    def sign_in(number: int) -> float:
        browser = browsers[number]
        form = {
            "username": f"person{number}", "password": PASSWORD,
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }  # fmt: skip
        together.wait()
        began = time.perf_counter()
        answer = browser.post("/console/login/", data=form)
        assert answer.status_code == 302, answer.status_code
        return (time.perf_counter() - began) * 1e3

    with ThreadPoolExecutor(PEOPLE) as pool:
        waiting = [pool.submit(sign_in, number) for number in range(PEOPLE)]
        among = asked.until(lambda _: all(answer.done() for answer in waiting))
        taken = [answer.result() for answer in waiting]
    for browser in browsers:
        browser.close()
    return taken, among


def _people_and_key() -> str:
    from django.contrib.auth.models import User

    from controlplane.access.actions import issue_key
    from controlplane.core.actors import SYSTEM

    for number in range(PEOPLE):
        User.objects.create_user(f"person{number}", password=PASSWORD)
    return issue_key("admin", "", "bench", actor=SYSTEM, scopes=["admin"])[1]


def _server():  # type: ignore[no-untyped-def]
    """Yields the server's address, and a function that reads the memory of its processes."""
    from contextlib import contextmanager

    from benchmarks.dataplane import load
    from tests.support.services import free_port

    @contextmanager
    def running():  # type: ignore[no-untyped-def]
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with load.served([*instance.SERVE, "--port", str(port)], f"{url}/console/login/") as server:
            for pid, _ in server._stats():
                os.sched_setaffinity(pid, load.CORES)
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), load.CORES)
            yield url, server.rss

    return running()


def _most(rss, done: threading.Event) -> int:  # type: ignore[no-untyped-def]
    most = 0
    while not done.wait(0.1):
        most = max(most, rss())
    return most


def _quantiles(taken: list[float]) -> list[float]:
    ordered = sorted(taken)
    return [
        ordered[len(ordered) // 2],
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))],
        ordered[-1],
        len(ordered),
    ]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
