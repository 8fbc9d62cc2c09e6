"""Every command line in the documentation: run here unchanged, or listed with the test that runs it elsewhere."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from policies_app.models import Workload
from tests.cli.conftest import Run
from tests.cli.test_evidence import HEADER
from tests.support import builders
from tests.support.sources import ROOT
from tests.support.task_logs import task_log

pytestmark = pytest.mark.django_db
BLOCK = re.compile(r"^( *)```(?:sh|bash|shell|console)\n(.*?)\n\1```", re.MULTILINE | re.DOTALL)
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("deploy/**/*.md"),
    *ROOT.glob("*/README.md"),
]

# Start of a line → what runs it instead. A file name is that of a test; `tests/integrations` are the tests of
# `make integrations`, which continuous integration also runs.
ELSEWHERE = {
    "make demo": ".ci/run: the whole of it, after the tests",
    "pip install 'pointsman[": "tests/deploy/test_wheels.py: each extra",
    "pip install pointsman": "tests/deploy/test_wheels.py: the wheel in an empty environment",
    "pip install --require-hashes": "tests/dataplane/test_cdn.py: with what requirements/s3.txt installs",
    "export ": "settings of the reader's own",
    "manage.py signing_key": "tests/security/test_signing_keys.py: it changes the instance's key",
    "flagd start": "tests/integrations/test_flagd.py: flagd's own evaluator reads such a file",
    "POINTSMAN_URL=https://pointsman.example POINTSMAN_KEY=pmr_… POINTSMAN_STORE":
        "tests/integrations/test_litellm.py: LiteLLM's own proxy with such a configuration",
    "POINTSMAN_URL=https://pointsman.example POINTSMAN_KEY=pma_… POINTSMAN_AGENT":
        "tests/cli/test_mcp.py: every tool, by the SDK's own client",
    # Tests have no Docker, cluster or systemd: the files are checked, and their processes are run without them.
    **dict.fromkeys(
        ("cd deploy/compose", "cp pointsman.env.example", "docker compose"),
        "tests/deploy/test_processes.py: the commands of the services as processes",
    ),
    **dict.fromkeys(("kubectl",), "tests/deploy/test_files.py: the manifests"),
    **dict.fromkeys(
        ("cp deploy/systemd", "install -m", "systemctl", "journalctl"), "tests/deploy/test_files.py: the units"
    ),
}  # fmt: skip
# Pages whose lines a test runs in order.
WHOLE = {
    "docs/tutorial/your-first-guarded-rollout.md": "tests/paths/test_tutorial.py",
    "README.md": "tests/house/test_readme.py: the tutorial's lines, and `make`'s targets",
}


class Line(NamedTuple):
    page: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def lines() -> Iterator[Line]:
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        for _, block in BLOCK.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                text = re.sub(r"\s{2,}#.*", "", line).strip()
                if text and not text.startswith("#") and name not in WHOLE:
                    yield Line(name, re.sub(r"\s+", " ", text))


LINES = list(dict.fromkeys(lines()))
HERE = [line for line in LINES if not line.text.startswith(tuple(ELSEWHERE))]


@pytest.fixture
def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """What the pages assume: a served workload with thirteen versions, and files of tasks."""
    monkeypatch.chdir(tmp_path)
    User.objects.create_user("anna")
    found = builders.workload("support-summaries")
    builders.served(builders.environment("production"), found)
    for name in ("support", "chat"):
        other = builders.workload(name)
        for _ in range(13):
            builders.version(other)
    (tmp_path / "support.yaml").write_text(
        "format: 1\nworkload: support\nmodels: {a: {model: x/a}, b: {model: x/b}}\ndefault: a\nfallback: [b]\n"
    )
    (tmp_path / "tasks.csv").write_text(HEADER + "100,1,0.001,1,0.01\n" * 40)
    (tmp_path / "tasks.jsonl").write_text(task_log(Workload.objects.get(name="support"), 60))
    return found


def ran_by_the_client(run: Run, words: list[str], folder: Path) -> str:
    """Run `pointsman …`, perhaps with `> file`. Return what it printed."""
    into = words[words.index(">") + 1] if ">" in words else None
    code, said, error = run(*(words[: words.index(">")] if into else words))
    assert code == 0, error
    if into:
        (folder / into).write_text(said)
    return said


def sent_by_curl(words: list[str], key: str) -> Any:
    """Send the request that `curl` would send to Django."""
    options = dict(zip(words, words[1:], strict=False))
    (address,) = [word for word in words if word.startswith("https://")][:1]
    path = "/" + address.split("/", 3)[3]
    headers = {"Authorization": f"Bearer {key}"}
    return Client().generic(
        options["-X"], path, options["-d"], content_type="application/json", headers=headers
    )


@pytest.mark.parametrize("page", sorted({line.page for line in HERE}))
def test_each_line_of_a_page_works(
    page: str, workload: Workload, run: Run, admin_key: str, tmp_path: Path
) -> None:
    tried: list[str] = []
    for line in (line for line in HERE if line.page == page):
        match line.words:
            case ["pointsman", *words]:
                ran_by_the_client(run, words, tmp_path)
            case ["python", "manage.py", *words]:
                call_command(*words)
            case ["curl", *words]:
                answer = sent_by_curl(words, admin_key)
                assert answer.status_code == 201, answer.content
            case _:
                pytest.fail(f"{line.page} shows `{line.text}`: run it here, or say in ELSEWHERE what runs it")
        tried.append(line.text)
    assert tried


def test_each_line_run_elsewhere_names_an_existing_test() -> None:
    for beginning, where in {**ELSEWHERE, **WHOLE}.items():
        file = where.partition(":")[0]
        assert not file.startswith("tests/") or (ROOT / file).is_file(), where
        shown = beginning in WHOLE or any(line.text.startswith(beginning) for line in LINES)
        assert shown, f"no page shows `{beginning}` any more: remove it"
