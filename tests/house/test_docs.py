"""Files, modules and links named in documents and docstrings exist."""

import importlib
import re
from pathlib import Path

import pytest

from rollout_app.engine import plans
from tests.support import sources

ROOT = sources.ROOT
MARKDOWN = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/**/*.md")]
    if ".venv" not in path.parts and "var" not in path.relative_to(ROOT).parts
)
PYTHON = sorted(path for package in sources.PACKAGES for path in sources.modules(package))
DOTTED = re.compile(r"`((?:controlplane|policies_app|rollout_app|pointsman|tests)(?:\.[A-Za-z_]\w*)+)[`(]")
FOLDERS = (
    "controlplane|policies_app|rollout_app|router_client|templates|tests|docs|benchmarks|requirements|deploy"
)
FILE = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")
CHECK_ID = re.compile(r"pointsman\.[EW]\d+")  # of Django's system checks
# Named in a decision, and not written yet.
PROMISED: set[str] = set()
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def _exists(dotted: str) -> bool:
    """Return whether it is a module, or a name in one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if error.name is None or not dotted.startswith(error.name):
                raise
            continue
        for name in parts[end:]:
            if not hasattr(found, name):
                return name in getattr(found, "__annotations__", {})
            found = getattr(found, name)
        return True
    return False


def _missing(path: Path) -> list[str]:
    text = path.read_text()
    names = [name for name in DOTTED.findall(text) if not (CHECK_ID.fullmatch(name) or _exists(name))]
    return names + [
        name for name in FILE.findall(text) if name not in PROMISED and not (ROOT / name).exists()
    ]


@pytest.mark.parametrize("path", MARKDOWN, ids=sources.relative)
def test_names_in_a_document_exist(path: Path) -> None:
    assert _missing(path) == []
    links = [link for link in LINK.findall(path.read_text()) if ":" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("package", sources.PACKAGES)
def test_names_in_a_docstring_exist(package: str) -> None:
    missing = {
        sources.relative(path): names for path in sources.modules(package) if (names := _missing(path))
    }
    assert missing == {}


def test_the_reference_gives_the_defaults_of_a_stage() -> None:
    page = (ROOT / "docs/reference/rollouts.md").read_text()
    rows = {cells[1].strip(): cells[-2] for line in page.splitlines() if len(cells := line.split("|")) == 5}
    shadow, full = plans.check([{"mode": "shadow"}, {"mode": "full"}])
    for name in ("min_minutes", "min_tasks"):
        assert rows[f"`{name}`"].strip() == f"{shadow[name]}; in `full` {full[name]}", name
    words = {"None": "none", "hold": "`hold`", "False": "false", "0": "0", "1.0": "1"}
    for name in ("max_hours", "on_timeout", "approval", "mirror_pcm", "skippable", "tolerance"):
        assert rows[f"`{name}`"].strip() == words[str(shadow[name])], name


def test_the_reference_lists_every_hold_reason() -> None:
    raised = re.compile(r'HoldReason\(\s*(?:code=)?"(\w+)"')
    packages = (ROOT / "rollout_app" / "engine", ROOT / "rollout_app" / "evaluation")
    codes = {
        code for home in packages for path in home.rglob("*.py") for code in raised.findall(path.read_text())
    }
    section = (ROOT / "docs/reference/rollouts.md").read_text().split("## Evaluations")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} == codes
