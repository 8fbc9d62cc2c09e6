"""What a package index shows: the README, with links that hold there, and the project's addresses.

Links in the repository are relative, and lead nowhere on the page of an index. They become addresses in the repository
that POINTSMAN_REPOSITORY_URL names; without it, in the one that a pipeline of GitHub or GitLab runs for, or that an
sdist was built from. Where none is known they become their words alone, and there are no project URLs.
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
    """Used by both distributions: by this folder's pyproject.toml, and by the one above."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        repository = known_repository(root).rstrip("/")
        folder = "router_client" if root.resolve() == Path(__file__).resolve().parent else ""
        text = (root / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readable(text, folder, repository)}
        metadata["urls"] = addresses(repository, folder)


def known_repository(root: Path) -> str:
    """The repository's address, or "". A variable that is set to nothing says that there is none."""
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
    """The README as it is read away from the repository. `folder`: where it lies in it."""

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
