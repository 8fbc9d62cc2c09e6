"""Format the results of several runs as a table, and write the table to docs/reliability.md."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from tests.faults.results import RECOVERED_WITHIN_S, Run

KEPT = Path(__file__).with_name("runs.jsonl")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
WHOLE = 1_500  # number of faults that `make faults` injects
BEGIN, END = "<!-- from tests/faults/runs.jsonl: begin -->\n", "<!-- end -->"


def table(runs: Iterable[Run]) -> Iterator[str]:
    """Yield the lines of the table: for each kind, the number of faults and the recovery times.

    Violations belong to a whole run, so they are listed only below the total.
    """
    runs = list(runs)
    yield "| kind | injected | median recovery, s | worst recovery, s |"
    yield "|---|---:|---:|---:|"
    kinds = sorted({kind for run in runs for kind in run.recoveries})
    for kind in kinds:
        seconds = [s for run in runs for s in run.recoveries.get(kind, [])]
        yield f"| {kind.replace('_', ' ')} | {len(seconds)} | {median(seconds):.1f} | {max(seconds):.1f} |"
    everything = [s for run in runs for seconds in run.recoveries.values() for s in seconds]
    yield f"| **{len(kinds)} kinds** | **{len(everything)}** | | **{max(everything, default=0):.1f}** |"
    yield ""
    violations = [found for run in runs for found in (*run.violations, *([run.ended] if run.ended else []))]
    yield (
        f"{_of(len(violations), 'violation')} in {_of(len(runs), 'run')};"
        f" {sum(run.tasks for run in runs):,} tasks recorded by routers,"
        f" {sum(run.changes for run in runs):,} changes asked for."
    )
    if late := [seconds for seconds in everything if seconds > RECOVERED_WITHIN_S]:
        yield f"\n{len(late)} of the faults were in waves after which it took longer than {RECOVERED_WITHIN_S:.0f} s."
    if len(everything) < WHOLE:
        yield f"\nThat is less than a whole `make faults`, which injects {WHOLE:,}: these are the runs that were made."
    yield from (f"\n- {found}" for found in violations)


def _of(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def kept() -> list[Run]:
    return [Run.read(line) for line in KEPT.read_text().splitlines()]


def page(runs: list[Run], text: str) -> str:
    """Return the page with the table of these runs."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n".join(table(runs)) + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    added = sys.argv[1:2] == ["--add"]
    if paths := sys.argv[1 + added :]:
        before = KEPT.read_text() if added else ""
        KEPT.write_text(before + "".join(Path(path).read_text() for path in paths))
    PAGE.write_text(page(kept(), PAGE.read_text()))
