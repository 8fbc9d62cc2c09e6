"""Prepare the README and the project URLs for a package index.

Relative links do not work on the page of an index. They are replaced by links to the repository in
POINTSMAN_REPOSITORY_URL, or that of the GitHub or GitLab pipeline, or that from which the sdist was built. If none is
known, links are replaced by their text, and there are no project URLs.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "POINTSMAN_REPOSITORY_URL"
HOMEPAGE = re.compile(r"^Project-URL: Homepage, (\S+)$", re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


class ReadmeAndAddresses(MetadataHookInterface):
    """The metadata hook of both distributions, in this folder's pyproject.toml and the one above."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        repository = known_repository(root).rstrip("/")
        folder = "router_client" if root.resolve() == Path(__file__).resolve().parent else ""
        text = (root / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readable(text, folder, repository)}
        metadata["urls"] = addresses(repository, folder)


def known_repository(root: Path) -> str:
    """Return the repository's address, or "". An empty variable means that there is none."""
    environ = os.environ
    if VARIABLE in environ:
        return environ[VARIABLE]
    if "GITHUB_REPOSITORY" in environ:
        return f"{environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{environ['GITHUB_REPOSITORY']}"
    if "CI_PROJECT_URL" in environ:
        return environ["CI_PROJECT_URL"]
    sdist = root / "PKG-INFO"
    found = HOMEPAGE.search(sdist.read_text(encoding="utf-8")) if sdist.is_file() else None
    return found[1] if found else ""


def addresses(repository: str, folder: str) -> dict[str, str]:
    if not repository:
        return {}
    return {
        "Homepage": repository,
        "Documentation": f"{repository}/blob/main/docs/README.md",
        "Source": f"{repository}/tree/main/{folder}".rstrip("/"),
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def readable(text: str, folder: str, repository: str) -> str:
    """Return the README for use outside the repository. `folder` is its folder in the repository."""

    def turned(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        path, mark, anchor = target.partition("#")
        if not path or ":" in path:
            return link[0]
        if not repository:
            return "" if picture else words
        place = posixpath.normpath(posixpath.join(folder, path))
        kind = "raw" if picture else "blob"
        return f"{picture}[{words}]({repository}/{kind}/main/{place}{mark}{anchor})"

    return LINK.sub(turned, text)
