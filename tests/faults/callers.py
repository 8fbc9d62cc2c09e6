"""Clients that call the gateways while faults are injected: reporters, people, and senders of bad input."""

import random
import threading
import time
from contextlib import suppress
from itertools import count
from typing import Any

import httpx

from tests.faults.history import Batch, Change, History
from tests.faults.scene import Scene
from tests.support.reports import batch, bucket

OUTCOMES = "/router/v1/outcomes"
TASKS = 118  # per batch: those of `reports.bucket`
PATIENCE_S = 5  # timeout for a response
TRIES = 600  # a tenth of a second apart
BAD_INPUT: list[tuple[str, str, bytes]] = [
    ("POST", OUTCOMES, b"{"),
    ("POST", OUTCOMES, b'{"batch_id": "x", "router": "r", "buckets": [{"minute": 1}]}'),
    ("POST", "/router/v1/events", b'{"events":[{"at":1}'),
    ("POST", "/router/v1/feedback", b'{"feedback":[{}, 1]}'),
    ("POST", "/router/v1/acks", b"\xff\xfe"),
    ("GET", "/router/v1/snapshot?since=x", b""),
    ("DELETE", "/router/v1/snapshot", b""),
    ("GET", "/router/v1/nowhere", b""),
    ("GET", "/api/v1/rollouts/nobody", b""),
    ("POST", "/api/v1/policies", b"\x00"),
]


def client(key: str) -> httpx.Client:
    return httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_S)


class Reporter:
    """Sends batches of known size. Repeats each until it is acknowledged, and sometimes once more."""

    def __init__(self, urls: list[str], scene: Scene, history: History, seed: int) -> None:
        self._urls, self._served, self._history = urls, scene.served, history
        self._chance = random.Random(seed)
        self._unacknowledged: dict[str, Any] = {}
        self._made_at: dict[str, float] = {}
        # Creation time of the newest batch that each gateway accepted.
        self.newest_at = dict.fromkeys(urls, 0.0)

    def work(self, over: threading.Event) -> None:
        with client(self._served.key) as http:
            while not over.wait(0.1):
                document = batch(bucket(self._served.assignment))
                name = document["batch_id"]
                self._history.batches[name] = Batch(TASKS)
                self._made_at[name], self._unacknowledged[name] = time.monotonic(), document
                self._send(http)
            for _ in range(TRIES):
                if not self._unacknowledged:
                    return
                self._send(http)
                time.sleep(0.1)

    def _send(self, http: httpx.Client) -> None:
        for name, document in list(self._unacknowledged.items())[-10:]:
            # Often sent to both gateways; it must count once.
            for url in self._chance.sample(self._urls, self._chance.randint(1, len(self._urls))):
                try:
                    answer = http.post(url + OUTCOMES, json=document)
                except httpx.HTTPError:
                    continue
                if answer.status_code == 202:
                    self._history.batches[name].acknowledged = True
                    self._unacknowledged.pop(name, None)
                    self.newest_at[url] = max(self.newest_at[url], self._made_at[name])


class Person:
    """Requests changes.

    Changes with odd numbers carry an `Idempotency-Key` and are repeated until there is a response. The others are sent
    only once; without a response, they may or may not have been made.
    """

    def __init__(self, urls: list[str], scene: Scene, history: History, seed: int) -> None:
        self._urls, self._scene, self._history = urls, scene, history
        self._chance = random.Random(seed + 1)
        self._numbers = count()
        self.revisions: list[
            tuple[float, int]
        ] = []  # when a change was first requested, and the revision it created

    def work(self, over: threading.Event) -> None:
        served = self._scene.served
        path = f"/api/v1/environments/{served.environment.name}/assignments/{served.assignment.workload.name}"
        with client(self._scene.operator_key) as http:
            while not over.wait(0.3):
                number = next(self._numbers)
                change = Change(f"change {number}")
                self._history.changes.append(change)
                began = time.monotonic()
                answer = self._ask(
                    http, f"{path}/{'pin' if number // 2 % 2 == 0 else 'unpin'}", change, number, over
                )
                if answer is not None and answer.status_code == 200:
                    change.acknowledged = True
                    self.revisions.append((began, answer.json()["revision"]))

    def _ask(
        self, http: httpx.Client, path: str, change: Change, number: int, over: threading.Event
    ) -> httpx.Response | None:
        body = {"reason": change.reason, **({"model": "large"} if path.endswith("/pin") else {})}
        headers = {"If-Match": "*", **({"Idempotency-Key": change.reason} if number % 2 else {})}
        while True:
            answer = None
            with suppress(httpx.HTTPError):
                answer = http.post(self._chance.choice(self._urls) + path, json=body, headers=headers)
            if number % 2 == 0 or over.is_set() or (answer is not None and answer.status_code < 500):
                return answer
            time.sleep(0.1)


class Steerer:
    """Alternately pauses and resumes the silent rollout, at a random gateway."""

    def __init__(self, urls: list[str], scene: Scene, history: History, seed: int) -> None:
        self._urls, self._scene, self._history = urls, scene, history
        self._chance = random.Random(seed + 2)
        self._numbers = count()

    def work(self, over: threading.Event) -> None:
        with client(self._scene.operator_key) as http:
            while not over.wait(0.5):
                number = next(self._numbers)
                change = Change(f"turn {number}", publishes=False)
                self._history.changes.append(change)
                turn = "pause" if number % 2 == 0 else "resume"
                url = f"{self._chance.choice(self._urls)}/api/v1/rollouts/{self._scene.silent.pk}/{turn}"
                with suppress(httpx.HTTPError):
                    answer = http.post(url, json={"reason": change.reason}, headers={"If-Match": "*"})
                    change.acknowledged = answer.status_code == 200


class Author:
    """Tries to approve their own rollout."""

    def __init__(self, urls: list[str], scene: Scene, history: History, seed: int) -> None:
        self._urls, self._scene, self._history = urls, scene, history
        self._chance = random.Random(seed + 3)

    def work(self, over: threading.Event) -> None:
        path = f"/api/v1/rollouts/{self._scene.own.pk}/approve"
        body = {"reason": "it is mine", "binding": self._scene.own_binding}
        with client(self._scene.author_key) as http:
            while not over.wait(1):
                with suppress(httpx.HTTPError):
                    url = self._chance.choice(self._urls) + path
                    answer = http.post(url, json=body, headers={"If-Match": "*"})
                    self._history.self_approvals[answer.status_code] += 1


class Stranger:
    """Sends bad input."""

    def __init__(self, urls: list[str], scene: Scene, history: History, seed: int) -> None:
        self._urls, self._scene, self._history = urls, scene, history
        self._chance = random.Random(seed + 4)

    def work(self, over: threading.Event) -> None:
        keys = {"/router": self._scene.served.key, "/api": self._scene.operator_key}
        with httpx.Client(timeout=PATIENCE_S) as http:
            while not over.wait(0.2):
                method, path, body = self._chance.choice(BAD_INPUT)
                key = next(key for start, key in keys.items() if path.startswith(start))
                try:
                    answer = http.request(
                        method,
                        self._chance.choice(self._urls) + path,
                        content=body,
                        headers={"Authorization": f"Bearer {key}"},
                    )
                except httpx.HTTPError:
                    continue
                self._history.bad_input[answer.status_code] += 1
