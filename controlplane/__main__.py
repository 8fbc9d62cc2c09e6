"""Entry point of `pointsman-server` and `python -m controlplane`: the `manage.py` commands without a checkout."""

import sys
from importlib.metadata import PackageNotFoundError, version

from controlplane.core.program import run


def main() -> None:
    """Run the given command."""
    if sys.argv[1:] == ["--version"]:
        try:
            print(f"pointsman-server {version('pointsman-server')}")
        except PackageNotFoundError:
            print("pointsman-server, not installed: run from a checkout")
        return
    # Given a module path as argv[0], Django would call itself `python -m django` in its help texts.
    run(["pointsman-server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
