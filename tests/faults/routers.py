"""Routers that run while faults are injected: one that checks every byte, and real ones with a known truth."""

import random
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from controlplane.core import signing
from pointsman import Pace, Router
from pointsman.errors import PointsmanError
from pointsman.policy import digest
from pointsman.sync.signature import PublicKeys
from tests.faults.disks import Disk
from tests.faults.history import Counted, History
from tests.support.plane import Served

SNAPSHOT = "/router/v1/snapshot"
# The truth: the success rate of each arm, and the cost of a task in nano-USD.
SUCCESS = {"baseline": 0.92, "candidate": 0.3}
COST = {"baseline": 1_000_000, "candidate": 700_000}
POLL_S = 2  # short long polls, so that one completes soon after a fault and shows that everything works
# Remaining reports are sent within this time. Reports that a router left on disk are sent a minute after its end.
MOST_S = 150


class Follower:
    """Polls one gateway and checks every byte of the responses."""

    def __init__(self, name: str, url: str, served: Served, history: History) -> None:
        self.name, self._url, self._served, self._history = name, url, served, history
        self._keys = PublicKeys(signing.public_key_text())
        self.positions = history.positions[name] = []

    def work(self, over: threading.Event) -> None:
        tag = ""
        headers = {"Authorization": f"Bearer {self._served.key}"}
        with httpx.Client(headers=headers, timeout=10) as client:
            while not over.wait(0.1):
                try:
                    answer = client.get(self._url + SNAPSHOT, headers={"If-None-Match": tag} if tag else {})
                except httpx.HTTPError:
                    continue
                if answer.status_code != 200:
                    continue
                document = answer.json()
                if problem := objection(answer, document, self._keys):
                    self._history.broken_snapshots.append(f"{self.name}: {problem}")
                tag = answer.headers["etag"]
                self.positions.append((document["epoch"], document["revision"]))

    def has(self, revision: int) -> bool:
        return bool(self.positions) and self.positions[-1][1] >= revision


def objection(answer: httpx.Response, document: Any, keys: PublicKeys) -> str | None:
    """Return the inconsistency in a response 200, or None."""
    try:
        keys.verify(answer.content, answer.headers.get("pointsman-signature"))
    except PointsmanError as error:
        return str(error)
    if not answer.headers["etag"].startswith(f'"{document["epoch"]}.{document["revision"]}.'):
        return f"the ETag {answer.headers['etag']} does not belong to revision {document['revision']}"
    if answer.headers["pointsman-revision"] != str(document["revision"]):
        return "the revisions in the headers and in the body differ"
    for name, workload in document["workloads"].items():
        for arm in ("baseline", "candidate"):
            version = workload[arm]
            if version is not None and digest(version["policy"]) != version["digest"]:
                return f"{name}: the digest of the {arm} does not match its document"
    return None


class RealRouter:
    """A `pointsman.Router` that decides continuously. With `records` it also records the outcome of each task."""

    def __init__(
        self, name: str, url: str, served: Served, history: History, home: Path, *, records: bool, seed: int
    ) -> None:
        self.name, self._url, self._served, self._history = name, url, served, history
        self._records, self._chance = records, random.Random(f"{seed} {name}")
        self.disk = Disk(home / f"{name}.snapshot", home / f"{name}.spool")
        self.ahead_s = 0.0  # its clock, relative to ours
        self.positions = history.positions[name] = []
        self._truth = history.routed.setdefault(name, {})
        self._restart = threading.Event()
        self._keys = signing.public_key_text()
        self.router = self._new()

    def _new(self) -> Router:
        self._accepted, self._accepted_at = 0, 0.0
        return Router(
            self._url,
            self._served.key,
            environment=self._served.environment.name,
            public_keys=self._keys,
            instance=self.name,
            store=self.disk.store,
            spool=self.disk.spool,
            clock=lambda: time.time() + self.ahead_s,
            pace=Pace(first_poll_within=0, flush_every=1),
            wait_s=POLL_S,
        )

    def restart(self) -> None:
        """Stop it and start a new one, which continues with the files on disk."""
        self._restart.set()

    def work(self, over: threading.Event) -> None:
        try:
            self.router.wait_ready(60)
            while not over.wait(0.05):
                if self._restart.is_set():
                    self.router.close()
                    self.router = self._new()
                    self._restart.clear()
                self._task()
                status = self.router.status()
                if status["outcomes_accepted"] > self._accepted:
                    self._accepted, self._accepted_at = status["outcomes_accepted"], time.monotonic()
                position = (status["epoch"], status["revision"])
                if not self.positions or self.positions[-1] != position:
                    self.positions.append(position)
            self._send_the_rest()
        finally:
            self.router.close()

    def _task(self) -> None:
        workload = self._served.assignment.workload.name
        decision = self.router.decide(workload, {"prompt_tokens": 900}, {"request": str(uuid.uuid4())})
        self._history.decisions += 1
        self._history.undecided += not decision.model
        if not self._records:
            return
        arm = decision.arm
        success, cost = self._chance.random() < SUCCESS[arm], COST[arm]
        self.router.record(decision, success=success, cost_nusd=cost, latency_ms=800)
        self._truth[arm] = self._truth.get(arm, Counted()).plus(success=success, cost_nusd=cost)

    def _send_the_rest(self) -> None:
        """Wait until everything that was recorded has been sent. The checkers report missing tasks."""
        waited = threading.Event()
        for _ in range(MOST_S * 10):
            status = self.router.status()
            left = any(self.disk.spool.path.glob("*.json"))
            if not status["outcomes_waiting"] and not status["batches_waiting"] and not left:
                return
            waited.wait(0.1)

    def has(self, revision: int) -> bool:
        return not self._restart.is_set() and (self.router.revision or 0) >= revision

    def confirmed_since(self, moment: float) -> bool:
        """Return whether it confirmed its revision to the control plane after this moment (monotonic)."""
        staleness = self.router.status()["staleness_s"]
        return staleness is not None and time.monotonic() - staleness > moment

    def reported_since(self, moment: float) -> bool:
        """Return whether outcomes were acknowledged after this moment, and none is waiting after a refusal."""
        return self._accepted_at > moment and self.router.status()["sending_error"] is None
