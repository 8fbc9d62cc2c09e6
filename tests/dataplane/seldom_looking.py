"""`manage.py` for a server that polls the database once an hour: whatever it learns sooner came from a notice."""

import sys

import django
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    django.setup()
    from policies_app.snapshots import watcher

    watcher.POLL_WITH_NOTICES_S = 3600.0
    execute_from_command_line(sys.argv)
