"""`pointsman-server`, and `python -m controlplane`: the commands of `manage.py`, where there is no checkout."""

import os
import sys


def main() -> None:
    """Run the command that was typed."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    from django.core.management import execute_from_command_line

    # Under the name of a module's file, Django would give itself the name `python -m django`.
    execute_from_command_line(["pointsman-server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
