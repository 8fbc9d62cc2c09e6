"""What a package index shows: the README, with links that hold there, and the project's addresses.

Links in the repository are relative, and lead nowhere on the page of an index. A release sets POINTSMAN_REPOSITORY_URL:
they become addresses in that repository. Without it they become their words alone, and there are no project URLs.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "POINTSMAN_REPOSITORY_URL"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


class ReadmeAndAddresses(MetadataHookInterface):
    """Used by both distributions: by this folder's pyproject.toml, and by the one above."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = os.environ.get(VARIABLE, "").rstrip("/")
        root = Path(self.root)
        folder = "router_client" if root.resolve() == Path(__file__).resolve().parent else ""
        text = (root / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readable(text, folder, repository)}
        metadata["urls"] = addresses(repository, folder)


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
