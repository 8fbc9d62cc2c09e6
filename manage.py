#!/usr/bin/env python
"""Django's command line: `python manage.py help` lists the commands."""

import sys

from controlplane.core.program import run

if __name__ == "__main__":
    run(sys.argv)
