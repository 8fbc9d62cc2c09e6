import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pointsman.cli import main
from pointsman.policy import digest
from tests.client.policies import two_stage


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.json"
    path.write_text(json.dumps(two_stage()))
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "format: 1\nworkload: w\nmodels: {small: {model: a/b}}\ndefault: smal\nfallback: [small]\n"
    )
    return str(path)


def test_it_validates_files(good: str, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", good]) == 0
    assert main(["validate", good, bad]) == 1
    assert (
        f'{bad}: error: default (line 4, column 10): no model "smal" under models' in capsys.readouterr().out
    )


def test_it_lists_problems_as_json(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--json", bad]) == 1
    (problem,) = json.loads(capsys.readouterr().out)
    assert (problem["file"], problem["path"], problem["line"]) == (bad, "default", 4)


def test_it_prints_the_digest_and_the_canonical_form(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digest", good]) == 0
    assert capsys.readouterr().out.strip() == digest(two_stage())
    assert main(["digest", "--canonical", good]) == 0
    assert json.loads(capsys.readouterr().out)["rank"] == ["small", "large"]


def test_it_refuses_the_digest_of_a_bad_policy(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digest", bad]) == 1
    assert "did you mean" in capsys.readouterr().err


def test_it_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["format"]["const"] == 1


def test_it_explains_a_route(
    good: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explain", good, '{"prompt_tokens": 9000}']) == 0
    route = json.loads(capsys.readouterr().out)
    assert (route["rule"], route["alias"], route["model"]) == ("heavy", "large", "vendor/large")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    assert main(["explain", good, "-"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == ["request.prompt_tokens"]


@pytest.mark.parametrize("request_", ["{", "[]"])
def test_it_explains_what_is_wrong_with_a_request(
    good: str, request_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", good, request_]) == 2
    assert "the request " in capsys.readouterr().err


def test_it_reports_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


class _Login(BaseHTTPRequestHandler):
    """A login page in front of the network answers every request with 200."""

    kind, page = "text/html; charset=utf-8", b"<!doctype html><p>Please log in"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    "command",
    [
        ["unpin", "w", "-e", "production", "-m", "over"],
        ["rollout", "list"],
        ["rollout", "report", "1"],
        ["rollout", "report", "1", "--json"],
    ],
)
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
def test_it_reports_that_something_else_answered(
    command: list[str], kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Login, "kind", kind)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Login) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        code = main(["--server", address, "--key", "pma_x", *command])
        server.shutdown()
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert "Something other than a control plane answered" in said.err
    assert "Traceback" not in said.err
