"""The server's wheel depends on the router client of the same checkout.

It does not stand among the dependencies of pyproject.toml: lock files are made of those, and the checkout's own client
is installed from `router_client/`.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WithTheClient(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_data["dependencies"].append(f"pointsman[cli]>={self._client_version()}")

    def _client_version(self) -> str:
        """The client's, which moves with the server; the server's own, where a source distribution lacks it."""
        source = Path(self.root) / "router_client" / "pointsman" / "version.py"
        if not source.is_file():
            return str(self.metadata.version)
        found = re.search(r'VERSION = "([^"]+)"', source.read_text(encoding="utf-8"))
        return found[1] if found else str(self.metadata.version)
