"""The clients that run while faults are injected, one thread each, and a check that everything works again."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.faults.callers import Author, Person, Reporter, Steerer, Stranger
from tests.faults.history import History
from tests.faults.routers import Follower, RealRouter
from tests.faults.scene import Scene


class Worker(Protocol):
    def work(self, over: threading.Event) -> None: ...


class Load:
    """`start` and `stop` the threads. Their observations are in `history`."""

    def __init__(self, urls: list[str], scene: Scene, home: Path, seed: int) -> None:
        self.history = history = History()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []  # errors that ended a thread of the test
        self.followers = [Follower(f"follower-{n}", url, scene.served, history) for n, url in enumerate(urls)]
        self.routers = [
            RealRouter(f"router-{n}", url, scene.served, history, home, records=False, seed=seed)
            for n, url in enumerate(urls)
        ]
        self.recorders = [
            RealRouter(f"recorder-{n}", url, scene.routed, history, home, records=True, seed=seed)
            for n, url in enumerate(urls)
        ]
        self._reporter = Reporter(urls, scene, history, seed)
        self._person = Person(urls, scene, history, seed)
        others = (kind(urls, scene, history, seed) for kind in (Steerer, Author, Stranger))
        self._workers: list[Worker] = [
            *self.followers, *self.routers, *self.recorders, self._reporter, self._person, *others,
        ]  # fmt: skip

    def start(self) -> None:
        for worker in self._workers:
            thread = threading.Thread(target=self._run, args=(worker,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, worker: Worker) -> None:
        try:
            worker.work(self._over)
        except BaseException as error:
            self.errors.append(error)
            raise

    def missing_since(self, moment: float) -> Iterator[str]:
        """Yield the activities that have not yet started and completed since this moment (monotonic).

        These are a change that every router has applied, a batch accepted by each gateway, and a poll and a report of
        each recording router.
        """
        made = [revision for began, revision in list(self._person.revisions) if began > moment]
        if not made:
            yield "a change"
        everybody: list[Follower | RealRouter] = [*self.followers, *self.routers]
        for router in everybody:
            if made and not router.has(made[0]):
                yield f"a change at {router.name}"
        for recorder in self.recorders:
            if not recorder.confirmed_since(moment):
                yield f"a poll of {recorder.name}"
            if not recorder.reported_since(moment):
                yield f"a report of {recorder.name}"
        for number, newest in enumerate(self._reporter.newest_at.values()):
            if newest <= moment:
                yield f"a batch at gateway-{number}"
