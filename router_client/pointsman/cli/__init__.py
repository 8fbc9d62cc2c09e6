"""`pointsman`: policies, rollouts and a control plane from the command line. Needs the extra `cli`.

Exit codes: 0 for success; 1 for a negative result (a policy with errors, a rollout that was rolled back, changes
found by `plan --exit-code`); 2 if the command was invalid, or the control plane refused it or could not be reached.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        from pointsman.cli.app import run
    except ImportError as error:
        print(
            f"pointsman: the command line needs its extra: pip install 'pointsman[cli]' ({error})",
            file=sys.stderr,
        )
        return 2
    return run(sys.argv[1:] if arguments is None else list(arguments))


if __name__ == "__main__":
    sys.exit(main())
