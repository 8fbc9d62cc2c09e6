"""Flagsmith's API compared with the gateway: polls, on one core each, in the same run with the same load.

    python benchmarks/flagsmith.py --source <checkout of github.com/Flagsmith/flagsmith> [--home directory]

Written for version 2.265.0 (tag v2.265.0). Its locked dependencies are installed from PyPI into a virtual environment
in a temporary directory, or in `--home`, to reuse it; the checkout is copied and stays unchanged. One dependency is
locked to a commit on GitHub (django-clickhouse-backend). The release with the same number replaces it; the measured
code does not use it.

It is served like in its image (`flagsmith start api`: gunicorn with two threads), with one worker on one core; and
again with every documented option that makes polls cheaper: the whole response cached in the process's memory
(`GET_FLAGS_ENDPOINT_CACHE_…`), no tracking of API usage, and no logging. The load and PostgreSQL have the other core;
figures are the server's own processor time, as medians of rounds in turn. Flagsmith has no ETags, so a client with
the newest version receives all of it again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.dataplane import instance, load, peers, table
from benchmarks.dataplane.peers import Asked
from tests.support.services import free_port

NEEDED = (
    "Flagsmith is not on PyPI: `benchmarks/flagsmith.py --source <directory>` needs a checkout of "
    "github.com/Flagsmith/flagsmith, version 2.265.0; nothing is compared"
)
FLAGS = "/api/v1/flags/"
NUMBERS = (1, 100)  # flags, workloads
FROM_GITHUB = "django-clickhouse-backend"
CACHED = {
    "GET_FLAGS_ENDPOINT_CACHE_SECONDS": "3600",
    "GET_FLAGS_ENDPOINT_CACHE_BACKEND": "django.core.cache.backends.locmem.LocMemCache",
    "ENABLE_API_USAGE_TRACKING": "false",
    "LOG_LEVEL": "ERROR",
}
# Run by Flagsmith's shell: creates an environment for each number of flags, and prints their keys last.
FILL = f"""
import json
from environments.models import Environment
from features.models import Feature
from organisations.models import Organisation
from projects.models import Project

organisation, keys = Organisation.objects.create(name="bench"), {{}}
for number in {NUMBERS}:
    project = Project.objects.create(name=f"bench-{{number}}", organisation=organisation)
    keys[number] = Environment.objects.create(name="bench", project=project).api_key
    for n in range(number):
        Feature.objects.create(
            name=f"flag-{{n}}", project=project, default_enabled=True, initial_value=f"value-{{n}}"
        )
print()
print(json.dumps(keys))
"""


class Flagsmith(NamedTuple):
    """The installation: its programs, its code, and their environment variables."""

    programs: Path
    api: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.programs / "flagsmith"), *arguments], cwd=self.api, env={**os.environ, **self.environment},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"flagsmith {arguments[0]}: {done.stderr.strip()}")
        return done.stdout


class Theirs(NamedTuple):
    server: load.Server
    port: int
    keys: dict[str, str]

    def poll(self, number: int, count: int) -> Asked:
        headers = {"X_Environment_Key": self.keys[str(number)], "If_None_Match": "*"}
        sent = [load.request("GET", FLAGS, **headers)]
        return Asked(self.server, self.port, lambda: sent, 200, count)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--source", type=Path)
    options.add_argument("--home", type=Path)
    given = options.parse_args()
    if given.source is None or not (given.source / "api" / "uv.lock").exists():
        print(NEEDED)
        return
    with ExitStack() as stack:
        home = (
            given.home.resolve() if given.home else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        )
        installed = _install(given.source, home)
        installed.run("migrate")
        keys = json.loads(installed.run("shell", "-c", FILL).splitlines()[-1])
        plain = stack.enter_context(_flagsmith(installed, keys, {}))
        cached = stack.enter_context(_flagsmith(installed, keys, CACHED))
        bare, rows = stack.enter_context(load.bare()), []
        for number in NUMBERS:
            with peers.gateway(number) as ours:
                rows += _compared(plain, cached, ours, bare, number)
    columns = [
        "CPU µs per request", "Flagsmith", "Flagsmith, cached", "gateway", "bare app", "Flagsmith ÷ gateway",
        "cached ÷ gateway", "Flagsmith /s", "cached /s", "gateway /s",
    ]  # fmt: skip
    version = json.loads((given.source / ".release-please-manifest.json").read_text())["."]
    table.show(f"Flagsmith {version} and the gateway, one core each", columns, rows)


def _compared(
    plain: Theirs, cached: Theirs, ours: peers.Gateway, bare: tuple[load.Server, int], number: int
) -> Iterator[list[object]]:
    for name, unchanged in (("nothing newer (gateway: 304)", True), ("all of it (200)", False)):
        mine = ours.poll(cached=unchanged)
        theirs, kept, gateway, limit = peers.compared(
            # With a hundred flags one response takes some ten milliseconds.
            plain.poll(number, max(100, 400 // number)),
            cached.poll(number, 400),
            mine,
            peers.limit(bare, mine.size, cached=unchanged),
        )
        costs = [side.cpu_us for side in (theirs, kept, gateway, limit)]
        rates = [side.per_second for side in (theirs, kept, gateway)]
        what = f"poll, {name}, {number} flag(s) / workload(s)"
        yield [what, *costs, theirs.times(gateway), kept.times(gateway), *rates]


@contextmanager
def _flagsmith(installed: Flagsmith, keys: dict[str, str], settings: dict[str, str]) -> Iterator[Theirs]:
    port = free_port()
    command = [str(installed.programs / "flagsmith"), "start", "--bind", f"127.0.0.1:{port}"]
    # It is found from the working directory, as in its image.
    command = ["env", "-C", str(installed.api), *command, "api"]
    health = f"http://127.0.0.1:{port}/health/liveness"
    with load.served(command, health, **{**installed.environment, **settings}) as server:
        yield Theirs(server, port, keys)


def _install(source: Path, home: Path) -> Flagsmith:
    home.mkdir(parents=True, exist_ok=True)
    api, programs = home / "api", home / "venv" / "bin"
    if not (programs / "flagsmith").exists():
        shutil.copytree(source / "api", api, symlinks=True, dirs_exist_ok=True)
        venv.create(home / "venv", with_pip=True, clear=True)
        _quietly(programs / "pip", "install", "--disable-pip-version-check", "uv")
        locked = _quietly(
            programs / "uv", "export", "--frozen", "--no-hashes", "--no-emit-project",
            "--no-emit-package", FROM_GITHUB, "--project", api,
        )  # fmt: skip
        release = _quietly(programs / "python", "-c", RELEASE, api / "uv.lock", FROM_GITHUB).strip()
        (home / "requirements.txt").write_text(f"{locked}\n{FROM_GITHUB}=={release}\n")
        _quietly(
            programs / "uv", "pip", "install", "--python", programs / "python", "--no-deps",
            "-r", home / "requirements.txt",
        )  # fmt: skip
    return Flagsmith(programs, api, _environment(home, programs))


# The version to which a package is locked.
RELEASE = """
import sys, tomllib
packages = tomllib.load(open(sys.argv[1], "rb"))["package"]
print(next(package["version"] for package in packages if package["name"] == sys.argv[2]))
"""


def _environment(home: Path, programs: Path) -> dict[str, str]:
    """Return the environment of its image plus, for the API, its compose file; one worker, because it has one core."""
    metrics = home / "prometheus"
    metrics.mkdir(exist_ok=True)
    return {
        "DATABASE_URL": instance.new_database(), "DJANGO_SETTINGS_MODULE": "app.settings.production",
        "ENVIRONMENT": "production", "DJANGO_SECRET_KEY": "bench", "DJANGO_ALLOWED_HOSTS": "*",
        "GUNICORN_WORKERS": "1", "GUNICORN_THREADS": "2", "ACCESS_LOG_LOCATION": "/dev/null",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics), "TASK_RUN_METHOD": "TASK_PROCESSOR",
        "ENABLE_TELEMETRY": "false", "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip


def _quietly(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(str(part) for part in command[:3])}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
