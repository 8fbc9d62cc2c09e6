"""README.md is correct: its settings are those of settings.py, and its commands are targets of the Makefile."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_it_lists_exactly_the_existing_settings() -> None:
    source = (ROOT / "controlplane" / "settings.py").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z0-9_]+)"', source))
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row)}
    assert listed == read


def test_the_settings_that_documents_name_can_be_set() -> None:
    pages = [
        "docs/security.md",
        *(f"docs/how-to/{name}.md" for name in ("deploy", "notifications", "cdn", "restore")),
    ]
    named = {
        name for page in pages for name in re.findall(r"`([A-Z]{2,}_[A-Z0-9_]+)`", (ROOT / page).read_text())
    }
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    assert len(named) > 10
    assert {name for name in named if f"`{name}`" not in table} == set()


def test_it_names_existing_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"make (demo|run|test|check|bench|clean)\b", README))
    assert {"demo", "run", "test", "check", "bench"} <= named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_its_ten_minutes_are_the_commands_of_the_tutorial() -> None:
    """`tests/paths/test_tutorial.py` runs the tutorial; these are the same lines, without the comments."""
    tutorial = (ROOT / "docs/tutorial/your-first-guarded-rollout.md").read_text()
    commands = re.findall(r"```sh\n(.*?)\n```", tutorial, re.DOTALL)
    block = README.partition("## Ten minutes")[2].split("```sh\n")[1].split("\n```")[0]
    assert [line.partition("  #")[0].strip() for line in block.splitlines()] == commands
