"""Make the server's wheel depend on the router client of the same checkout.

The client is not among the dependencies in pyproject.toml, because the lock files are compiled from those, and a
checkout installs its own client from `router_client/`.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WithTheClient(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_data["dependencies"].append(f"pointsman[cli]>={self._client_version()}")

    def _client_version(self) -> str:
        """Return the client's version. Without the client (in a source distribution) return the server's, which is
        equal."""
        source = Path(self.root) / "router_client" / "pointsman" / "version.py"
        if not source.is_file():
            return str(self.metadata.version)
        found = re.search(r'VERSION = "([^"]+)"', source.read_text(encoding="utf-8"))
        return found[1] if found else str(self.metadata.version)
