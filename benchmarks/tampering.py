"""Thousands of manipulations of the audit log and the rows it describes, on SQLite and on PostgreSQL.

`python benchmarks/tampering.py [how many on each] [sqlite or postgres]`: by default 5,000 on both. Rows and values are
drawn at random, each time with a new seed, which is printed. `audit verify` must find and name every manipulation and
crash on none, and an emergency write and a checkpoint must succeed after each. Exits with code 1 otherwise.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("drawn", "found", "located", "could still write")


def on(database: str, count: int, seed: str) -> dict[str, list[int]]:
    """Return counts by kind, in the order of `COLUMNS`."""
    with tempfile.TemporaryDirectory() as home:
        result = Path(home) / "result.json"
        asked = {"TAMPERINGS": str(count), "TAMPERINGS_SEED": seed, "TAMPERINGS_RESULT": str(result)}
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "--db", database, "-o", "timeout=0"]
        command.append(
            f"{ROOT}/tests/trust/test_tampering.py::test_every_kind_of_tampering_is_detected_and_named"
        )
        done = subprocess.run(command, cwd=ROOT, env=os.environ | asked, capture_output=True, text=True)
        if not result.exists():
            sys.exit(done.stdout + done.stderr)
        found: dict[str, list[int]] = json.loads(result.read_text())
        return found


def main() -> None:
    count, missed = int((sys.argv[1:] or ["5000"])[0]), 0
    for database in sys.argv[2:] or ("sqlite", "postgres"):
        seed = secrets.token_hex(4)
        rows = on(database, count, seed)
        total = [sum(row[at] for row in rows.values()) for at in range(len(COLUMNS))]
        print(f"\n{database}: {len(rows)} kinds, {total[0]:,} tamperings, seed {seed}\n")
        print(f"| {'kind':44} | " + " | ".join(f"{name:>17}" for name in COLUMNS) + " |")
        print(f"|{'-' * 46}|" + f"{'-' * 18}:|" * len(COLUMNS))
        for kind, row in [*sorted(rows.items()), ("all", total)]:
            print(f"| {kind:44} | " + " | ".join(f"{number:>17,}" for number in row) + " |", flush=True)
        missed += sum(total[0] - number for number in total[1:])
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
