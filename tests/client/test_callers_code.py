"""Code of the application that runs within the client, such as log filters and a key function, may fail."""

import logging
import threading
from collections.abc import Iterator

import pytest

from pointsman import Pace, Router
from pointsman.reporting.samples import inputs as input_samples
from pointsman.testing import FakeControlPlane
from tests.client.policies import always
from tests.client.watching import eventually

AT_ONCE = Pace(first_poll_within=0, flush_every=0.02, stop_within=20)


class NoRequestHere(logging.Filter):
    """Like a filter that adds the current request's id, in a thread that has no request."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise LookupError("working outside of a request")


@pytest.fixture
def failing_log() -> Iterator[None]:
    handler = logging.StreamHandler()
    handler.addFilter(NoRequestHere())
    logger = logging.getLogger("pointsman")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.mark.usefixtures("failing_log")
def test_it_follows_the_policy_although_its_log_lines_fail(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        plane.fail(503)
        assert eventually(lambda: router.status()["last_error"])
        assert eventually(lambda: router.status()["failures_in_a_row"] >= 2)
        plane.recover()
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: router.revision == 2)
        assert plane.wait_for(lambda: any(ack["revision"] == 2 for ack in plane.acks))
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["outcomes_accepted"] == 1)


@pytest.mark.usefixtures("failing_log")
def test_a_request_goes_on_although_its_log_line_fails(plane: FakeControlPlane) -> None:
    with plane.router(defaults={"unserved": "vendor/own"}) as router:
        assert router.decide("unserved").model == "vendor/own"
        decision = router.decide("summaries")
        for _ in range(2):
            router.record(decision, success=True, quality=7)
        router.record(None, success=True)  # type: ignore[arg-type]


def test_the_log_names_the_line_that_speaks(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with plane.router() as router:
        router.record(None)  # type: ignore[arg-type]
    (spoken,) = [one for one in caplog.records if "could not be recorded" in one.message]
    assert (spoken.name, spoken.filename, spoken.funcName) == ("pointsman", "router.py", "record")
    assert spoken.exc_info


def test_it_goes_on_after_its_key_function_has_failed(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With samples, which are sent last: a failure there ended the sending of outcomes."""
    monkeypatch.setattr(input_samples, "_EVERY_S", 0.0)
    away = False

    def key() -> str:
        if away:
            raise ConnectionError("the vault is away")
        return plane.key

    with Router(plane.url, key, pace=AT_ONCE, sample_inputs=5, wait_s=0) as router:
        assert router.wait_ready(30)
        for _ in range(20):
            router.record(router.decide("summaries"), success=True)
        away = True
        assert eventually(lambda: router.status()["poll_failures"] > 1)
        assert "ConnectionError: the vault is away" in router.status()["last_error"]
        away = False
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["outcomes_accepted"] == 21)
    assert "Traceback" not in caplog.text


def test_a_key_function_that_fails_while_samples_are_sent_stops_nothing(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_samples, "_EVERY_S", 0.0)
    asked = 0

    def key() -> str:
        nonlocal asked
        asked += 1
        if asked % 3 == 0:
            raise ConnectionError("the vault is away")
        return plane.key

    with Router(plane.url, key, pace=AT_ONCE, sample_inputs=5) as router:
        for number in range(1, 12):
            router.record(router.decide("summaries"), success=True)
            if router.ready:
                recorded = router.status()["outcomes_recorded"]
                assert eventually(lambda: router.status()["outcomes_accepted"] == recorded), number  # noqa: B023
            else:
                assert eventually(lambda: router.ready)


@pytest.mark.parametrize("busy", ["_outcomes", "_feedback"])
def test_a_signal_handler_that_interrupts_a_record_can_close(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture, busy: str
) -> None:
    """`signal.signal(SIGTERM, lambda *_: router.close())`: the process must not hang until it is killed."""
    router = plane.router(pace=Pace(first_poll_within=0, flush_every=60, stop_within=0.1))
    router.record(router.decide("summaries"), success=True)
    lock = getattr(router, busy)._lock
    with lock:  # as if the signal came here
        closing = threading.Thread(target=router.close, daemon=True)
        closing.start()
        closing.join(30)
        assert not closing.is_alive()
    assert "closed in the middle of a record" in caplog.text
