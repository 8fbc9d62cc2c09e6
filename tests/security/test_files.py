"""Files of an instance are readable only by the user that runs it."""

import os
import stat
import subprocess
import sys
from pathlib import Path

from django.conf import settings


def _modes(home: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*")}


def test_every_file_of_an_instance_is_private(tmp_path: Path) -> None:
    home = tmp_path / "var"
    keep = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    script = (
        "import os; os.umask(0o022); import django; django.setup(); "
        "from django.core.management import call_command as call; call('migrate', verbosity=0); "
        "call('keys', 'public'); from controlplane.audit import checkpoints, log; "
        "from controlplane.core.actors import SYSTEM; from django.db import transaction\n"
        "with transaction.atomic(): log.record(actor=SYSTEM, action='a', target=('b', 'c'))\n"
        "checkpoints.make()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=settings.BASE_DIR,
        env={**keep, "POINTSMAN_VAR": str(home), "DJANGO_SETTINGS_MODULE": "controlplane.settings"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    modes = _modes(home)
    assert {"pointsman.sqlite3", "secret-key", "signing-key", "checkpoints"} <= set(modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def test_an_older_directory_is_made_private(tmp_path: Path) -> None:
    from controlplane.core.secretfile import own_directory, own_file

    tmp_path.chmod(0o755)
    own_directory(tmp_path)
    old = tmp_path / "old.sqlite3"
    old.touch()
    old.chmod(0o644)
    own_file(old)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
