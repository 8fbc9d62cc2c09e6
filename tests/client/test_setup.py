"""An invalid setup is reported at once: what is wrong, where, and how to fix it."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pointsman import ConfigurationError, Pace, Router
from pointsman.errors import PolicyInvalid
from pointsman.policy import validate
from pointsman.testing import FakeControlPlane, Reply, Request
from tests.client.policies import two_stage
from tests.client.watching import eventually

PACE = Pace(first_poll_within=0, flush_every=0.05, stop_within=20)
LONG = 60.0  # much longer than an error takes; a test that waits for it fails by its own limit


def asked(url: str, key: str | Callable[[], str] = "pmr_test") -> Router:
    return Router(url, key, pace=PACE)


@pytest.mark.parametrize(
    ("path", "key", "answer", "says"),
    [
        ("/console", "pmr_test", None, "HTTP 404"),
        ("/console", "pmr_test", None, "`url` is the control plane's address"),
        ("", "pmr_wrong", None, "A router key begins with pmr_"),
        ("", "pmr_test", Reply(403, b'{"code": "forbidden"}'), "the key is not a router key"),
        ("", "pmr_test", Reply(401, b'{"code": "key_revoked"}'), "Issue another router key"),
        ("", "pmr_test", Reply(401, b'{"code": "key_expired"}'), "Rotate it"),
        ("", "pmr_test", Reply(302, headers={"Location": "https://x/login"}), "redirects to https://x/login"),
        ("", "pmr_test", Reply(200, b"<!doctype html><p>Hello"), "that is a web page"),
    ],
)
def test_it_ends_the_wait_for_a_snapshot_immediately(
    plane: FakeControlPlane, path: str, key: str, answer: Reply | None, says: str
) -> None:
    if answer is not None:
        plane.tamper = lambda request, reply: answer
    with asked(plane.url + path, key) as router:
        with pytest.raises(ConfigurationError) as refused:
            router.wait_ready(LONG)
        assert says in str(refused.value)
        assert f"{plane.url}{path}/router/v1/snapshot" in str(refused.value), "the address that was requested"
        assert router.status()["last_error"] == str(refused.value)
        assert router.decide("summaries").model == "", "a request is still answered"


def test_it_mentions_no_last_known_good_if_there_is_none(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with plane.outage(), asked(plane.url) as router:
        assert eventually(lambda: router.status()["last_error"])
        assert router.wait_ready(0) is False
        assert f"no answer from {plane.url}/router/v1/snapshot" in router.status()["last_error"]
    assert "last known good" not in caplog.text
    assert "there is no policy yet, only defaults" in caplog.text


def test_it_mentions_the_last_known_good_if_there_is_one(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with plane.router() as router:
        plane.key = "another"
        plane.serve("summaries", two_stage(), version=2)
        assert eventually(lambda: router.status()["last_error"])
        assert router.wait_ready(0) is True
    assert "continuing with the last known good: HTTP 401" in caplog.text


def test_it_calls_a_key_function_again_after_a_wrong_key(plane: FakeControlPlane) -> None:
    keys = iter(["pmr_old"])
    with asked(plane.url, lambda: next(keys, "pmr_test")) as router:
        assert router.wait_ready(LONG)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "no key, but an empty text"),
        (" \n", "no key, but an empty text"),
        (None, "no key, but NoneType"),
        ("pmr_1\npmr_2", "no usable key: it has characters that no key has"),
    ],
)
def test_it_asks_a_key_function_again_that_returned_no_key(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture, given: str | None, says: str
) -> None:
    keys = iter([given])
    with asked(plane.url, lambda: next(keys, "pmr_test")) as router:  # type: ignore[arg-type,return-value]
        assert router.wait_ready(LONG)
    assert f"only defaults: the key function returned {says}" in caplog.text
    assert "no answer from" not in caplog.text, "nothing was sent"
    assert "pmr_" not in caplog.text


def test_it_logs_only_once_that_a_workload_is_not_served(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with plane.router() as router:
        for _ in range(3):
            assert router.decide("sumaries").model == ""
        router.decide(7)  # type: ignore[arg-type]
        assert router.status()["workloads_unknown"] == ["sumaries"]
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "test serves no workload 'sumaries'" in said
    assert 'it serves summaries. Correct the name, or serve that workload; did you mean "summaries"?' in said


def test_it_explains_that_a_rejected_policy_cannot_run_here(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.serve("chat", two_stage(workload="chat", default="nobody"))
    with plane.router() as router:
        router.decide("chat")
    assert "the policy of 'chat' cannot run in this router" in caplog.text
    assert "serves no workload" not in caplog.text


def test_it_names_a_limited_number_of_unknown_workloads(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with plane.router() as router:
        for number in range(300):
            router.decide(f"made-up-{number}")
        assert len(router.status()["workloads_unknown"]) == 100
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 100


def test_it_names_a_chosen_workload_that_is_not_served(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    with plane.router(workloads=["summaries", "sumaries"]) as router:
        assert router.status()["workloads_unknown"] == ["sumaries"]
        assert "serves no workload 'sumaries' to this key" in caplog.text
        plane.serve("sumaries", two_stage(workload="sumaries"))
        assert eventually(lambda: router.status()["workloads_unknown"] == [])


def test_its_requests_write_nothing_to_the_applications_log(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    import httpx

    caplog.set_level(logging.INFO, "httpx")
    with plane.router() as router:
        router.record(router.decide("summaries"), success=True)
        assert plane.wait_for(lambda: plane.tasks("summaries") == 1)
        httpx.get(f"{plane.url}/the/applications/own")
    lines = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert len(lines) == 1
    assert "/the/applications/own" in lines[0]
    assert logging.getLogger("httpx").level == logging.INFO, "the application sets its level"


def test_it_reports_that_its_clock_is_ahead(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    """F8: counts are kept, and the operator is told once."""
    ahead = threading.Event()
    ahead.set()

    def refuse(request: Request, reply: Reply) -> Reply:
        if not (ahead.is_set() and request.path.endswith("/outcomes")):
            return reply
        body = b'{"code": "clock_ahead", "server_time": "2020-01-01T00:00:00+00:00"}'
        return Reply(503, body, {"Retry-After": "0"})

    plane.tamper = refuse
    with plane.router() as router:
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["clock_ahead_s"])
        status = router.status()
        assert status["clock_ahead_s"] > 86_400
        assert "this machine's clock is ahead" in status["sending_error"]
        assert status["outcomes_waiting"] == 1
        ahead.clear()
        assert eventually(lambda: router.status()["outcomes_accepted"] == 1)
        assert eventually(lambda: router.status()["clock_ahead_s"] is None)
        assert router.status()["sending_error"] is None
    assert caplog.text.count("this machine's clock is ahead") == 1


# The fake control plane accepts a policy in any form

YAML = """
format: 1
workload: summaries
models: {small: {model: vendor/small}, large: {model: vendor/large}}
default: small
escalate: {max: 1, to: large, on: [error]}
fallback: [large]
"""


def test_the_fake_accepts_yaml_text_and_paths(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(YAML)
    policies: list[str | Path] = [YAML, tmp_path / "policy.yaml"]
    with FakeControlPlane() as plane:
        for version, policy in enumerate(policies, 1):
            plane.serve("summaries", policy, version=version)
            plane.roll_out("summaries", policy, version=version + 1, mode="shadow")
            with plane.router() as router:
                decision = router.decide("summaries")
                assert (decision.version, decision.model) == (version, "vendor/small")
                assert router.status()["rejected"] == []


def test_the_fake_explains_that_yaml_1_1_reads_on_as_true() -> None:
    """F21: `yaml.safe_load` makes `{True: ["error"]}` of `on: [error]`."""
    data = yaml.safe_load(YAML)
    assert True in data["escalate"]
    plane = FakeControlPlane()
    for give in (plane.serve, plane.roll_out):
        with pytest.raises(
            PolicyInvalid, match=r"YAML 1\.1.*turns the name on, yes or true into true"
        ) as refused:
            give("summaries", data)
        assert [problem.path for problem in refused.value.problems] == ["escalate"]


@pytest.mark.parametrize("name", [True, "true", "True"])
def test_a_policy_changed_by_yaml_1_1_is_explained(name: str | bool) -> None:
    """F21: in JSON, which the API accepts, the name is the text "true"."""
    problems = validate(two_stage(escalate={"max": 1, "to": "large", name: ["error"]}))
    assert any("YAML 1.1" in problem.message for problem in problems)
    assert not any("YAML 1.1" in p.message for p in validate(two_stage(true=1)))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("escalate: {max: 1, to: large, yes: [error]}", "turns the name on, yes or true into true"),
        ("escalate: {max: 1, to: large, off: [error]}", "turns the name off, no or false into false"),
        ("models: {no: {model: x}}", "turns the name off, no or false into false"),
        ("rules: [{id: no, when: 'true', use: large}]", "turns off, no or false into false"),
        ("rules: [{id: a, when: off, use: large}]", "turns off, no or false into false"),
        ("default: yes", "turns on, yes or true into true"),
    ],
)
def test_each_word_of_yaml_1_1_for_a_boolean_is_explained(written: str, says: str) -> None:
    problems = validate({**two_stage(), **yaml.safe_load(written)})
    assert any(says in problem.message for problem in problems), problems
