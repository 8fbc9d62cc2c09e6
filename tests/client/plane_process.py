"""A control plane in a separate process, to be killed: `plane_process.py <port> <journal> <revision>`."""

import sys
import time
from pathlib import Path

from pointsman.testing import FakeControlPlane

POLICY = {
    "format": 1,
    "workload": "summaries",
    "models": {"small": {"model": "vendor/small"}, "large": {"model": "vendor/large"}},
    "rules": [{"id": "heavy", "when": "request.prompt_tokens > 8000", "use": "large"}],
    "default": "small",
    "fallback": ["large", "small"],
}


def main(port: int, journal: Path, revision: int) -> None:
    """Serve until killed; everything acknowledged is in the journal."""
    with FakeControlPlane(epoch="e1", journal=journal, port=port) as plane:
        plane.revision = revision - 1
        plane.serve("summaries", POLICY)
        print("serving", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
