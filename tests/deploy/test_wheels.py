"""What users install: both distributions, built, installed into an empty environment, and used there.

Their dependencies are those of this test run; no index is contacted.
"""

import email
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import httpx
import pytest
from markdown import markdown

from pointsman.version import VERSION
from tests.support.plane import PATIENCE_S, until
from tests.support.services import free_port
from tests.support.sources import ROOT

CLIENT = ROOT / "router_client"
REPOSITORY = "https://git.example/pointsman"
LINK = re.compile(r"\]\(([^)\s]+)\)")


FORGES = ("POINTSMAN_REPOSITORY_URL", "GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "CI_PROJECT_URL")


def build(source: Path, target: Path, *what: str, repository: str = "", **told: str) -> Path:
    """Build a folder's one distribution with hatchling. `told`: environment variables, in place of `repository`."""
    target.mkdir(parents=True)
    unset = {name: value for name, value in os.environ.items() if name not in FORGES}
    env = {**unset, **(told or {"POINTSMAN_REPOSITORY_URL": repository})}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target), *what]
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The client's wheel, built from its sdist as users of an index would; the server's, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    source = build(CLIENT, folder / "sdist", "--target", "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / source.name.removesuffix(".tar.gz")
    return {
        "client": build(unpacked, folder / "client", "--target", "wheel"),
        "server": build(ROOT, folder / "server", "--target", "wheel"),
    }


def installed(home: Path, *wheels: Path) -> Path:
    """Create an environment with these wheels, and this test's dependencies. Return its `bin`."""
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    for wheel in wheels:
        command = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
        done = subprocess.run(
            [*command, "--quiet", "--no-deps", "--no-index", str(wheel)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    (site / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin"


def run(program: Path, *arguments: str, cwd: Path, code: int = 0) -> str:
    env = {"PATH": str(program.parent), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


# The client


@pytest.fixture(scope="module")
def client(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("client"), wheels["client"])


def test_the_clients_wheel_contains_its_types_and_commands(client: Path, tmp_path: Path) -> None:
    assert run(client / "pointsman", "--version", cwd=tmp_path).strip() == f"pointsman {VERSION}"
    script = "import pointsman, pathlib; print(pathlib.Path(pointsman.__file__).parent)"
    home = Path(run(client / "python", "-c", script, cwd=tmp_path).strip())
    assert home.is_relative_to(client.parent), "not the checkout's"
    there = {path.relative_to(home) for path in home.rglob("*.py")}
    assert there == {path.relative_to(CLIENT / "pointsman") for path in (CLIENT / "pointsman").rglob("*.py")}
    assert (home / "py.typed").is_file()


def test_a_router_decides_with_the_clients_wheel(client: Path, tmp_path: Path) -> None:
    script = (
        "from pointsman.testing import FakeControlPlane\n"
        "models = '{a: {model: x/a}, b: {model: x/b}}'\n"
        "with FakeControlPlane() as plane:\n"
        "    plane.serve('w', f'format: 1\\nworkload: w\\nmodels: {models}\\ndefault: a\\nfallback: [b]')\n"
        "    with plane.router() as router:\n"
        "        print(router.decide('w').model)\n"
    )
    assert run(client / "python", "-c", script, cwd=tmp_path) == "x/a\n"


# extra → its purpose, and the message if it is missing
EXTRAS = {
    "yaml": ("from pointsman.policy import parse; parse('format: 1')", "yaml"),
    "cli": ("from pointsman.cli import main; raise SystemExit(main(['--version']))", "typer"),
    "signing": ("from pointsman.sync.signature import PublicKeys; PublicKeys('k:' + 'A' * 43 + '=')", "cryptography"),
    "prometheus": (
        "from pointsman import Router; Router('http://x', 'k', start=False).export_metrics()", "prometheus_client",
    ),
    "openfeature": ("import pointsman.integrations.openfeature", "openfeature"),
    "otel": ("import pointsman.integrations.otel", "opentelemetry"),
    "mcp": ("import pointsman.integrations.mcp", "mcp"),
}  # fmt: skip


def test_each_extra_is_declared(wheels: dict[str, Path]) -> None:
    assert set(metadata(wheels["client"]).get_all("Provides-Extra") or []) == set(EXTRAS)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_works_if_installed_and_is_named_if_missing(
    client: Path, tmp_path: Path, extra: str
) -> None:
    use, module = EXTRAS[extra]
    run(client / "python", "-c", use, cwd=tmp_path)
    hidden = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name.partition('.')[0] == {module!r}: raise ModuleNotFoundError(name)\n"
        f"sys.meta_path.insert(0, Missing())\n{use}"
    )
    said = run(client / "python", "-c", hidden, cwd=tmp_path, code=2 if extra == "cli" else 1)
    assert f"pointsman[{extra}]" in said, said


def test_without_extras_only_the_declared_dependencies_are_needed(wheels: dict[str, Path]) -> None:
    needs = [
        need for need in metadata(wheels["client"]).get_all("Requires-Dist") or [] if "extra ==" not in need
    ]
    assert sorted(re.split(r"[<>=]", need)[0] for need in needs) == ["httpx", "rfc8785"]


# What an index shows


@pytest.fixture(scope="module", params=["client", "server"])
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Message:
    """The metadata of a release, whose build knows the address of the repository."""
    source = CLIENT if request.param == "client" else ROOT
    target = tmp_path_factory.mktemp("release") / "dist"
    return metadata(build(source, target, "--target", "wheel", repository=REPOSITORY))


def test_its_readme_renders_and_its_links_work(released: Message) -> None:
    text = str(released.get_payload())
    assert released["Description-Content-Type"] == "text/markdown"
    page = markdown(text, extensions=["fenced_code", "tables"])
    assert page.count("<h1>") == 1
    assert "```" not in page
    links = [link for link in LINK.findall(text) if not link.startswith("#")]
    assert len(links) > 3
    for link in links:
        kind, _, path = link.removeprefix(f"{REPOSITORY}/").partition("/main/")
        assert kind in ("blob", "raw"), link
        assert (ROOT / path.partition("#")[0]).exists(), link


def test_it_has_the_projects_urls(released: Message) -> None:
    addresses = dict(entry.split(", ", 1) for entry in released.get_all("Project-URL") or [])
    assert set(addresses) == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    assert all(address.startswith(REPOSITORY) for address in addresses.values())


@pytest.mark.parametrize(
    "told",
    [
        {"GITHUB_SERVER_URL": "https://git.example", "GITHUB_REPOSITORY": "pointsman"},
        {"CI_PROJECT_URL": f"{REPOSITORY}/"},
        {"POINTSMAN_REPOSITORY_URL": REPOSITORY, "GITHUB_REPOSITORY": "a/fork"},
    ],
    ids=["GitHub", "GitLab", "told"],
)
def test_a_pipeline_sets_the_repository(tmp_path: Path, told: dict[str, str]) -> None:
    found = metadata(build(CLIENT, tmp_path / "dist", "--target", "wheel", **told))
    assert f"Homepage, {REPOSITORY}" in (found.get_all("Project-URL") or [])


def test_a_wheel_built_from_an_sdist_has_the_urls_of_the_sdist(tmp_path: Path) -> None:
    source = build(CLIENT, tmp_path / "sdist", "--target", "sdist", repository=REPOSITORY)
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / source.name.removesuffix(".tar.gz")
    found = metadata(build(unpacked, tmp_path / "wheel", "--target", "wheel", LANG="C.UTF-8"))
    assert f"Homepage, {REPOSITORY}" in (found.get_all("Project-URL") or [])
    assert f"({REPOSITORY}/" in str(found.get_payload())


def test_a_build_without_an_address_has_no_broken_links(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        found = metadata(wheel)
        text = str(found.get_payload())
        assert [link for link in LINK.findall(text) if not link.startswith(("#", "http"))] == []
        assert found.get_all("Project-URL") is None


# The server


@pytest.fixture(scope="module")
def server(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("server"), *wheels.values())


def test_the_servers_wheel_contains_everything_in_the_checkout(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["server"]) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT)
        .as_posix()
        .replace("templates/", "controlplane/templates/", folder == "templates")
        for folder in ("controlplane", "policies_app", "rollout_app", "templates")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected - there == set()
    assert f"pointsman[cli]>={VERSION}" in (metadata(wheels["server"]).get_all("Requires-Dist") or [])


@pytest.fixture
def serving(server: Path, tmp_path: Path) -> Iterator[str]:
    """Migrate and start the server from its wheel in an empty folder. Yields its address."""
    program = server / "pointsman-server"
    assert "no issues" in run(program, "check", cwd=tmp_path)
    assert "Run `pointsman-server migrate` first" in run(program, "serve", cwd=tmp_path, code=1)
    run(program, "migrate", "--verbosity", "0", cwd=tmp_path)
    port = free_port()
    log = (tmp_path / "log").open("w")
    env = {"PATH": str(program.parent), "LANG": "C.UTF-8"}
    command = [str(program), "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log, process_group=0)
    try:
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_server_runs_from_its_wheel_in_an_empty_folder(serving: str, tmp_path: Path) -> None:
    until(lambda: answers(serving))
    page = httpx.get(f"{serving}/console/", follow_redirects=True)
    assert page.status_code == 200
    assert "Log in to see which policies your routers use." in page.text, "its templates are there"
    assert httpx.get(f"{serving}/static/console/console.css").status_code == 200, "its static files are there"
    assert json.loads(httpx.get(f"{serving}/readyz").content)
    assert (tmp_path / "var" / "pointsman.sqlite3").is_file(), (
        "the instance's files are in the folder where it was started"
    )
