"""Entry point of `pointsman-server` and `python -m controlplane`: the `manage.py` commands without a checkout."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version


def main() -> None:
    """Run the given command."""
    if sys.argv[1:] == ["--version"]:
        try:
            print(f"pointsman-server {version('pointsman-server')}")
        except PackageNotFoundError:
            print("pointsman-server, not installed: run from a checkout")
        return
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    from django.core.management import execute_from_command_line

    # Given a module path as argv[0], Django would call itself `python -m django` in its help texts.
    execute_from_command_line(["pointsman-server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
