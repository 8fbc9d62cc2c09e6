"""Following a control plane over real HTTP."""

import socket
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from random import Random

import pytest

from pointsman import Pace, Router
from pointsman.errors import SnapshotRefused
from pointsman.sync.backoff import LONGEST_S, Backoff
from pointsman.sync.transport import _retry_after
from pointsman.testing import FakeControlPlane, Reply, Request
from tests.client.policies import always, two_stage
from tests.client.watching import eventually, polls

PACE = Pace(first_poll_within=0, flush_every=0.02, stop_within=20)
PATIENT = Pace(first_poll_within=0, flush_every=60, stop_within=20)


def test_it_holds_one_poll_open_and_receives_changes_at_once(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        assert eventually(lambda: router.revision == 1)
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: router.revision == 2)
        assert router.decide("summaries").model == "vendor/large"
        assert len(polls(plane)) <= 3
    first, second = polls(plane)[:2]
    assert first.headers["Prefer"] == "wait=25"
    assert "If-None-Match" not in first.headers
    assert second.headers["If-None-Match"].startswith(f'"{plane.epoch}.1.')
    assert second.since == 1
    assert first.headers["Authorization"] == "Bearer pmr_test"
    assert first.headers["Pointsman-Router"] == router.instance
    assert first.headers["Pointsman-Client"].startswith("pointsman-python/")


def test_it_applies_deltas_with_removed_workloads(plane: FakeControlPlane) -> None:
    plane.serve("other", always("large"))
    with plane.router() as router:
        plane.remove("other")
        assert eventually(lambda: router.revision == 3)
        assert router.status()["workloads"] == 1
        assert router.decide("summaries").model == "vendor/small"


def test_it_polls_only_its_workloads(plane: FakeControlPlane) -> None:
    with plane.router(workloads=["summaries", "a&b"]):
        pass
    assert polls(plane)[0].query["workload"] == ["summaries", "a&b"]


@pytest.mark.parametrize("workloads", [(), ("summaries", "other")])
def test_it_refuses_a_snapshot_of_workloads_that_it_did_not_ask_for(
    plane: FakeControlPlane, workloads: tuple[str, ...]
) -> None:
    """Somebody on the way changes the query: the signature fits, and workloads would be gone."""

    def narrow(request: Request, reply: Reply) -> Reply:
        if not request.path.endswith("/snapshot") or reply.status != 200:
            return reply
        return plane._reply(replace(request, query={**request.query, "workload": ["other"]}))

    plane.serve("other", always("large"))
    with plane.router(workloads=workloads) as router:
        plane.tamper = narrow
        plane.serve("other", always("small"))
        assert eventually(lambda: router.status()["snapshots_refused"] > 1)
        assert "selection_mismatch" in router.status()["last_error"]
        assert router.decide("summaries").model == "vendor/small"


def test_it_acknowledges_what_it_applied_and_rejected(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        assert plane.wait_for(lambda: plane.acks)
        plane.fail(503, path="/acks", times=2)  # the first attempts of the acknowledgement
        plane.roll_out("summaries", two_stage(default="nobody"))
        assert eventually(lambda: router.status()["rejected"] == ["summaries"])
        assert plane.wait_for(lambda: any(ack["state"] == "rejected" for ack in plane.acks))
    applied, rejected = ([a for a in plane.acks if a["state"] == state] for state in ("applied", "rejected"))
    assert {"router": router.instance, "revision": 1, "epoch": plane.epoch, "state": "applied"} in applied
    assert len(rejected) == 1
    assert (rejected[0]["workload"], rejected[0]["router"]) == ("summaries", router.instance)
    assert rejected[0]["digest"].startswith("sha256:")
    assert "nobody" in rejected[0]["error"]


def test_it_does_not_advance_its_etag_past_a_refused_body(plane: FakeControlPlane) -> None:
    def cut(request: Request, reply: Reply) -> Reply:
        torn = request.path.endswith("/snapshot") and b'"revision": 2' in reply.body
        return replace(reply, body=reply.body[:-20]) if torn else reply

    with plane.router() as router:
        plane.tamper = cut
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: router.status()["snapshots_refused"] > 0)
        assert (router.revision, router.decide("summaries").model) == (1, "vendor/small")
        assert "malformed" in router.status()["last_error"]
        plane.tamper = None
        assert eventually(lambda: router.revision == 2)
    refused = [request for request in polls(plane)[2:] if request.since is None]
    assert refused, "after a refused delta it asks for a full snapshot"
    assert all(f".{1}." in request.headers["If-None-Match"] for request in refused)


def test_it_stops_reading_a_body_over_its_limit(plane: FakeControlPlane) -> None:
    plane.tamper = lambda request, reply: replace(reply, body=b" " * 1_000_000 + reply.body)
    with plane.router(ready=False, max_bytes=100_000) as router:
        assert eventually(lambda: router.status()["snapshots_refused"] > 0)
        assert "too_large" in router.status()["last_error"]
        assert not router.ready


def test_the_reason_of_a_refusal_is_set_before_it_is_logged_or_counted(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = Router(plane.url, "pmr_test", start=False)
    seen: list[tuple[int, int, str]] = []

    def told(*_: object) -> None:
        status = router.status()
        seen.append((status["poll_failures"], status["snapshots_refused"], status["last_error"]))

    monkeypatch.setattr("pointsman.sync.poller.log.warning", told)
    router._background.poller._refused(SnapshotRefused("malformed", "cut"), None)
    assert [(failures, refused) for failures, refused, _ in seen] == [(1, 0)]
    assert "malformed" in seen[0][2]
    assert router.status()["snapshots_refused"] == 1


def test_it_continues_when_the_key_is_revoked(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        plane.key = "another"
        plane.fail(401)
        assert eventually(lambda: "401" in (router.status()["last_error"] or ""))
        assert router.decide("summaries").model == "vendor/small"
        assert router.status()["staleness_s"] >= 0


def test_it_calls_the_key_function_for_each_request_so_that_keys_can_be_rotated(
    plane: FakeControlPlane,
) -> None:
    keys = iter(["pmr_old"])
    with Router(plane.url, lambda: next(keys, "pmr_test"), pace=PACE) as router:
        assert router.wait_ready(30)
        assert router.status()["poll_failures"] == 1


def test_it_does_not_poll_in_a_tight_loop_when_the_server_holds_nothing(plane: FakeControlPlane) -> None:
    plane.poll_interval_ms = 200
    began = time.monotonic()
    with plane.router(wait_s=0):
        assert plane.wait_for(lambda: len(polls(plane)) >= 5)
        assert time.monotonic() - began >= 4 * 0.16


@pytest.mark.parametrize("interval_ms", [2**31 - 1, pytest.param(10**400, id="huge")])
def test_it_waits_at_most_five_minutes_whatever_interval_it_is_told(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, interval_ms: int
) -> None:
    """Otherwise a pin or a rollback would not reach it for weeks."""
    intervals: list[float] = []
    spread = Backoff.spread

    def seen(backoff: Backoff, seconds: float) -> float:
        intervals.append(seconds)
        return spread(backoff, seconds)

    monkeypatch.setattr(Backoff, "spread", seen)
    plane.poll_interval_ms = interval_ms
    with plane.router(wait_s=0) as router:
        assert eventually(lambda: 300 in intervals)
        assert (router.status()["polls"], router.status()["poll_failures"]) == (1, 0)
    assert max(intervals) == 300


def test_it_does_not_poll_in_a_tight_loop_when_a_proxy_drops_the_etag(plane: FakeControlPlane) -> None:
    def no_etag(request: Request, reply: Reply) -> Reply:
        return replace(reply, headers={k: v for k, v in reply.headers.items() if k != "ETag"})

    plane.tamper = no_etag
    plane.poll_interval_ms = 200
    began = time.monotonic()
    with plane.router():
        # The first few might be one change after another.
        assert plane.wait_for(lambda: len(polls(plane)) >= 7)
        assert time.monotonic() - began >= 4 * 0.16


def test_it_respects_retry_after(plane: FakeControlPlane) -> None:
    plane.fail(429, retry_after_s=30)
    with plane.router(ready=False) as router:
        assert eventually(lambda: router.status()["poll_failures"] == 1)
        time.sleep(0.3)
        assert router.status()["polls"] == 1
        plane.recover()
        assert router.wait_ready(30), "asking for it polls at once"


def test_it_backs_off_with_full_jitter_of_at_most_half_a_minute() -> None:
    """A wait of a minute, counted from the control plane's start, once kept some routers away for 66 s."""
    backoff = Backoff(Random(7))
    waits = [backoff.failure() for _ in range(2_000)]
    for failures, wait in enumerate(waits[:8]):
        assert 0 <= wait <= 2**failures
    late = waits[20:]
    assert max(late) <= LONGEST_S == 30
    assert min(late) < 1 < 29 < max(late)
    assert abs(sum(late) / len(late) - 15) < 1
    assert 60 <= backoff.failure(60) <= 67
    backoff.success()
    assert backoff.failure() <= 1


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("7", 7), ("-3", 0), ("nan", None), ("soon", None), ("1e9", 300)]
)
def test_it_reads_retry_after_in_seconds(header: str | None, seconds: float | None) -> None:
    assert _retry_after(header) == seconds


def test_it_reads_retry_after_as_a_date() -> None:
    seconds = _retry_after(formatdate(time.time() + 90, usegmt=True))
    assert seconds is not None
    assert 30 < seconds <= 91


def test_it_delays_the_first_poll_randomly_by_a_few_seconds() -> None:
    firsts = [Backoff(Random(seed)).first(5) for seed in range(200)]
    assert min(firsts) < 0.3
    assert 4.7 < max(firsts) <= 5


def test_it_follows_a_new_epoch_after_a_restore(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: router.revision == 2)
        plane.restore(revision=1)
        assert eventually(lambda: router.status()["epoch"] == plane.epoch)
        assert router.revision == 1


def test_it_delivers_outcomes_while_a_poll_hangs(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        router.record(router.decide("summaries"), success=True)
        assert plane.wait_for(lambda: plane.tasks("summaries") == 1, 20)


def test_a_batch_counts_once_however_often_it_is_sent(plane: FakeControlPlane) -> None:
    def lose_answer(request: Request, reply: Reply) -> Reply:
        lost = request.path.endswith("/outcomes") and sum(plane.deliveries.values()) <= 2
        return replace(reply, status=503) if lost else reply

    plane.tamper = lose_answer
    with plane.router() as router:
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["outcomes_accepted"] == 1)
    assert max(plane.deliveries.values()) == 3
    assert plane.tasks("summaries") == 1


def test_it_halves_what_is_too_large_for_the_control_plane(plane: FakeControlPlane) -> None:
    plane.max_buckets = 3
    with plane.router(pace=replace(PACE, flush_every=0.3)) as router:
        for number in range(10):
            router.record(router.decide("summaries", {"endpoint": f"/{number}"}), success=True)
        assert plane.wait_for(lambda: plane.tasks("summaries") == 10)
        assert router.status()["outcomes_refused"] == 0


def test_it_drops_only_the_buckets_named_by_the_control_plane(plane: FakeControlPlane) -> None:
    def refuse_one(request: Request, reply: Reply) -> Reply:
        bad = [b["endpoint"] for b in request.json()["buckets"]] if request.path.endswith("/outcomes") else []
        if "/bad" not in bad:
            return reply
        plane.batches.pop(request.json()["batch_id"], None)
        return Reply(422, b'{"code": "bad_buckets", "errors": [{"index": %d}]}' % bad.index("/bad"))

    plane.tamper = refuse_one
    with plane.router(pace=replace(PACE, flush_every=0.3)) as router:
        for endpoint in ("/a", "/bad", "/c"):
            router.record(router.decide("summaries", {"endpoint": endpoint}), success=True)
        assert plane.wait_for(lambda: plane.tasks("summaries") == 2)
        assert router.status()["outcomes_refused"] == 1


def test_it_delivers_feedback_and_isolates_a_refused_one(plane: FakeControlPlane) -> None:
    def refuse_bad(request: Request, reply: Reply) -> Reply:
        bad = request.path.endswith("/feedback") and b'"bad"' in request.body
        if bad:
            plane.feedback.clear()
        return Reply(422, b"{}") if bad else reply

    plane.tamper = refuse_bad
    with plane.router() as router:
        for decision_id in ("a", "bad", "c"):
            router.feedback(decision_id, "human_review", success=True, score=0.8)
        assert eventually(lambda: router.status()["feedback_waiting"] == 0)
        assert router.status()["feedback_dropped"] == 1
    assert {"decision_id": "c", "kind": "human_review", "success": True, "score": 0.8} in plane.feedback


def test_it_stops_and_flushes_while_a_poll_hangs(plane: FakeControlPlane) -> None:
    others = set(threading.enumerate())
    router = plane.router(pace=PATIENT)
    router.record(router.decide("summaries"), success=True)
    began = time.monotonic()
    router.close()
    assert time.monotonic() - began < 20  # of the 25 s that the poll may hang
    assert plane.tasks("summaries") == 1
    assert not any(thread.name == "pointsman" for thread in set(threading.enumerate()) - others)


def test_its_last_flush_may_take_as_long_as_its_limit(plane: FakeControlPlane) -> None:
    def slow(request: Request, reply: Reply) -> Reply:
        time.sleep(1.5)
        return reply

    router = plane.router(pace=PATIENT)
    router.record(router.decide("summaries"), success=True)
    plane.tamper = slow
    router.close()
    assert (router.status()["outcomes_accepted"], router.status()["outcomes_dropped"]) == (1, 0)


def test_it_stops_when_the_control_plane_hangs_and_spools(plane: FakeControlPlane, tmp_path: Path) -> None:
    router = plane.router(pace=Pace(first_poll_within=0, flush_every=60), spool=tmp_path)
    router.record(router.decide("summaries"), success=True)
    release = threading.Event()

    def hang(request: Request, reply: Reply) -> Reply:
        release.wait(60)
        return Reply(503)

    plane.tamper = hang
    began = time.monotonic()
    router.close()
    assert time.monotonic() - began < 30  # much less than the server hangs
    release.set()
    assert len(list(tmp_path.iterdir())) == 1
    assert router.status()["outcomes_dropped"] == 0


def test_it_stops_while_a_name_cannot_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    others = set(threading.enumerate())
    asked, release = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        asked.set()
        release.wait(60)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    router = Router("http://pointsman.example", "pmr_x", pace=PACE)
    assert asked.wait(30)
    began = time.monotonic()
    router.close()
    assert time.monotonic() - began < 30  # much less than the resolution hangs
    assert not any(thread.name == "pointsman" for thread in set(threading.enumerate()) - others)
    assert not any(
        thread.name == "pointsman-resolver" and not thread.daemon
        for thread in set(threading.enumerate()) - others
    )
    release.set()


def test_it_stops_even_before_the_first_poll(plane: FakeControlPlane) -> None:
    router = plane.router(ready=False, pace=Pace(first_poll_within=600))
    began = time.monotonic()
    router.close()
    router.close()
    assert time.monotonic() - began < 30


def test_it_survives_an_unexpected_error(plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    with plane.router() as router:
        monkeypatch.setattr(router._good, "receive", lambda received: 1 / 0)
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: "ZeroDivisionError" in (router.status()["last_error"] or ""))
        monkeypatch.undo()
        assert eventually(lambda: router.revision == 2)


def _waits(backoff: Backoff, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the wait after each failure."""
    count = backoff.failure

    def failure(retry_after_s: float | None = None) -> float:
        count(retry_after_s)
        return seconds

    monkeypatch.setattr(backoff, "failure", failure)


@pytest.mark.parametrize(("told", "polls_again"), [(None, True), (3_600, False)])
def test_it_polls_again_as_soon_as_a_report_succeeds(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, told: float | None, polls_again: bool
) -> None:
    """Unless the control plane has set the time of the next poll."""
    with plane.router(pace=PACE) as router:
        poller, sender = router._background.poller, router._background.sender
        _waits(poller._backoff, 3_600, monkeypatch)
        _waits(sender._backoff, 0.01, monkeypatch)
        plane.fail(503, retry_after_s=told)
        assert eventually(lambda: router.status()["failures_in_a_row"] == 1)
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["sending_error"])
        plane.recover()
        assert eventually(lambda: not router.status()["outcomes_waiting"])
        assert (
            eventually(lambda: router.status()["failures_in_a_row"] == 0, 5 if polls_again else 0.3)
            is polls_again
        )


def test_it_reports_again_as_soon_as_a_poll_succeeds(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plane.router(pace=PACE) as router:
        poller, sender = router._background.poller, router._background.sender
        _waits(poller._backoff, 0.01, monkeypatch)
        _waits(sender._backoff, 3_600, monkeypatch)
        plane.fail(503)
        assert eventually(lambda: router.status()["failures_in_a_row"] > 0)
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["sending_error"])
        plane.recover()
        assert eventually(lambda: not router.status()["outcomes_waiting"], 5)
