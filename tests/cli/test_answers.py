"""Answers that are not the API's, addresses and keys that cannot be used, and where the key goes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from pointsman.cli import app, main, policies, rollouts
from pointsman.cli.output import Output
from pointsman.cli.server import Server

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text("- {name: x/small, context_window: 128000}\n")
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """The requests that were sent to `answered_by`."""
    monkeypatch.setenv("POINTSMAN_URL", "http://plane")
    monkeypatch.setenv("POINTSMAN_KEY", "pma_secret")
    return []


@pytest.fixture
def answered_by(asked: list[httpx.Request], monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    def use(answer: Answer) -> None:
        def transported(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return answer(request)

        transport = httpx.MockTransport(transported)
        monkeypatch.setattr("pointsman.cli.server.httpx.Client", partial(httpx.Client, transport=transport))

    return use


Use = Callable[[Answer], None]
NOT_FOUND = {"code": "not_found", "detail": "There is nothing here, or you may not see it."}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(404, html="<h1>404</h1>"), "Something other than a control plane answered"),
        (httpx.Response(404, json=NOT_FOUND), "There is no control plane at http://plane/api/v1/"),
        (httpx.Response(200, json={}), "Something other than a control plane answered"),
        (httpx.Response(200, json=[]), "Something other than a control plane answered"),
        (httpx.Response(200), "Something other than a control plane answered"),
        (httpx.Response(301, headers={"Location": "https://plane/"}), "it is at https://plane/; use that address"),
        (httpx.Response(302), "Something other than a control plane answered"),
        (httpx.Response(302, headers={"Location": "/login"}), "it is at http://plane/login; use that address"),
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), "http://plane/api/v1/environments: 502, text/html"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "export"])
def test_it_takes_no_other_answer_for_an_empty_control_plane(
    command: str, answer: httpx.Response, says: str, folder: Path, answered_by: Use,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    answered_by(lambda request: answer)
    code = main([command, str(folder if command == "plan" else folder / "out")])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert says in said.err
    assert "<h1>" not in said.err and "Traceback" not in said.err


def test_watching_waits_out_the_error_page_of_a_proxy(
    asked: list[httpx.Request], answered_by: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "WATCH_EVERY_S", 0)
    done = {
        "id": "1", "workload": "w", "environment": "e", "baseline": 1, "candidate": 2, "state": "completed",
        "stage": None, "stages": [], "rollback_reason": "", "hold_sentence": "",
    }  # fmt: skip
    answered_by(
        lambda request: httpx.Response(502, html="<h1>") if len(asked) < 3 else httpx.Response(200, json=done)
    )
    assert (
        rollouts.watch_until_done(Server("http://plane", "pma_x"), Output(True), "1")["state"] == "completed"
    )


@pytest.mark.parametrize("address", ["http://host:abc", "http://[::1", "http://:80", "https://"])
def test_an_address_that_cannot_be_used_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--server", address, "--key", "pma_x", "rollout", "list"]) == 2
    assert "is not a valid address of a control plane" in capsys.readouterr().err


@pytest.mark.parametrize("proxy", ["foo://proxy", "http://[::1"])
def test_a_proxy_setting_that_cannot_be_used_is_named(
    proxy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert main(["--server", "http://plane", "--key", "pma_x", "rollout", "list"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pointsman: The address or a proxy setting cannot be used:"), said


def test_an_unknown_error_is_no_negative_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str) -> bytes:
        raise KeyError(name)

    monkeypatch.setattr(policies, "read", broken)
    assert app.run(["digest", "policy.yaml"]) == 2
    assert "KeyError: 'policy.yaml'" in capsys.readouterr().err


def test_a_line_break_after_the_key_is_not_sent(
    asked: list[httpx.Request], answered_by: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTSMAN_KEY", "pma_secret\r\n")
    monkeypatch.setenv("POINTSMAN_URL", "http://plane\n")
    answered_by(lambda request: httpx.Response(200, json={"items": [], "next": None}))
    assert main(["rollout", "list"]) == 0
    assert asked[0].headers["Authorization"] == "Bearer pma_secret"


@pytest.mark.parametrize("key", ["pma_sec\nret", "pma_sec\x00ret", "pma_sécret", "pma_sec\x7fret"])
def test_a_key_that_cannot_be_sent_is_not_printed(
    key: str, asked: list[httpx.Request], answered_by: Use, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("POINTSMAN_URL", "http://plane")
    answered_by(lambda request: httpx.Response(200, json={"items": [], "next": None}))
    assert main(["--key", key, "rollout", "list"]) == 2
    said = capsys.readouterr()
    assert said.err == "pointsman: The key contains characters that cannot be sent; copy it again.\n"
    assert asked == []


@pytest.mark.parametrize("command", [["pin", "w", "large"], ["unpin", "w"]])
def test_the_emergency_switch_reads_nothing_first(
    command: list[str], asked: list[httpx.Request], answered_by: Use
) -> None:
    answered_by(lambda request: httpx.Response(200, json={"revision": 7}))
    assert main([*command, "-e", "production", "-m", "now"]) == 0
    (request,) = asked
    assert (request.method, "If-Match" in request.headers) == ("POST", False)


def test_the_key_stays_with_the_host_that_was_asked(asked: list[httpx.Request], answered_by: Use) -> None:
    second: dict[str, Any] = {"items": [], "next": None}
    first = {"items": [], "next": "https://elsewhere.example/api/v1/rollouts?cursor=a%3D%3D&limit=200&state="}
    answered_by(lambda request: httpx.Response(200, json=second if "cursor" in request.url.params else first))
    assert main(["rollout", "list"]) == 0
    assert [request.url.host for request in asked] == ["plane", "plane"]
    assert (asked[1].url.path, asked[1].url.params["cursor"]) == ("/api/v1/rollouts", "a==")


def test_square_brackets_in_a_table_stay(capsys: pytest.CaptureFixture[str]) -> None:
    Output(False).table(("[head]",), [("[bold]x[/bold]",), ("[/]",), ("stages[0].approval",)], [])
    said = capsys.readouterr().out
    for text in ("[head]", "[bold]x[/bold]", "[/]", "stages[0].approval"):
        assert text in said
