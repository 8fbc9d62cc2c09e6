"""Hooks of mkdocs: pages that are generated from code, and documents outside `docs/`.

Links in documents are written for readers of the repository. Links that leave `docs/` are changed here to the page's
place in the site or, if it has none, to plain text.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Documents outside `docs/`, and their places in the site.
OUTSIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
    "benchmarks/README.md": "explanation/benchmarks.md",
    "router_client/README.md": "reference/router-client.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    _set_up_django()
    for path, place in OUTSIDE.items():
        text = (ROOT / path).read_text()
        files.append(File.generated(config, place, content=_links(text, path, place)))
    for place, content in (
        ("reference/settings.md", _settings()),
        ("reference/commands.md", _commands()),
        ("reference/api.md", _API),
        ("reference/openapi.json", _openapi()),
    ):
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    place = page.file.src_uri
    return markdown if place in OUTSIDE.values() else _links(markdown, f"docs/{place}", place)


def _links(text: str, path: str, place: str) -> str:
    """Rewrite the links of a document of the repository for the site."""

    def turned(link: re.Match[str]) -> str:
        image, words, target = link.groups()
        address, mark, anchor = target.partition("#")
        if ":" in address or not address:
            return link[0]
        aim = os.path.normpath(Path(path).parent / address)
        there = OUTSIDE.get(aim) or (aim.removeprefix("docs/") if aim.startswith("docs/") else None)
        if there is None:
            return words
        relative = os.path.relpath(there, Path(place).parent)
        return f"{image}[{words}]({relative}{mark}{anchor})"

    return LINK.sub(turned, text)


# --- generated from code ------------------------------------------------------------------------------


def _set_up_django() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "router_client")]
    os.environ.setdefault("POINTSMAN_VAR", tempfile.mkdtemp(prefix="pointsman-docs-"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    import django

    django.setup()


def _settings() -> str:
    """Return the README's table, which `tests/house/test_readme.py` compares with settings.py."""
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("## Settings")[2].partition("\n## ")[0]
    return "# Settings\n" + _links(table, "README.md", "reference/settings.md")


def _commands() -> str:
    from django.core.management import get_commands, load_command_class

    lines = ["# Commands", "", "As `python manage.py <command> --help` prints them.", ""]
    for name, app in sorted(get_commands().items()):
        if str(app).split(".")[0] in ("controlplane", "policies_app", "rollout_app"):
            parser = load_command_class(str(app), name).create_parser("manage.py", name)
            lines += [f"## manage.py {name}", "", "```text", parser.format_help().rstrip(), "```", ""]
    lines += ["## pointsman", "", "```text", _client_help().rstrip(), "```", ""]
    return "\n".join(lines)


def _client_help() -> str:
    from pointsman import cli

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main(["--help"])
    return printed.getvalue()


_API = """# Admin API

Below `/api/v1/`, with `Authorization: Bearer pma_…` or a session. The same document is at `/api/v1/schema` of every
instance.

<swagger-ui src="openapi.json" supportedSubmitMethods="[]"/>
"""


def _openapi() -> str:
    from drf_spectacular.generators import SchemaGenerator

    schema: Any = SchemaGenerator().get_schema(request=None, public=True)
    return json.dumps(schema, default=str)
