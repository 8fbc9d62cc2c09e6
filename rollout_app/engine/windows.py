"""Group minutes into strata: closed windows in which both arms saw the same traffic.

The minutes are the routers' stamps, not arrival times. A window never spans two stages, because comparing across two
shares would mix the time of day with the arm. Its end depends on the number of tasks and on the clock, never on
results: otherwise one could close windows when they look good.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from rollout_app.engine.evidence import ArmSums, ClosedWindow, Differing, Group, MinuteRow, Slices, SliceSums

MIN_TASKS = 50
MAX_MINUTES = 60


def closes_before(*, now: datetime, lag_s: float, newest_minute: int, last_received_at: datetime) -> int:
    """Return the first minute that is still open, as a Unix minute; all earlier ones are older than the outcome lag.

    While outcomes arrive, time is what the routers stamp (never ahead of `now`): a replay that runs an hour in a
    minute closes its windows by its own clock. When nothing has arrived for the lag plus a minute, the wall clock
    closes them.
    """
    newest = min(newest_minute, int(now.timestamp() // 60))
    by_stamps = int((newest * 60 - lag_s) // 60)
    if (now - last_received_at).total_seconds() < lag_s + 60:
        return by_stamps
    return max(by_stamps, int((now.timestamp() - lag_s) // 60))


def close_windows(
    rows: Iterable[MinuteRow], *, before: int, cursors: Mapping[int, int]
) -> tuple[list[ClosedWindow], dict[int, int]]:
    """Return the strata that have closed, oldest first, and the new cursors (stage: first minute not judged yet).

    Minutes are joined until they hold MIN_TASKS tasks or span an hour. Minutes before a cursor arrived too late and
    are left out; minutes of a window that is still open stay for the next call.
    """
    strata: list[ClosedWindow] = []
    moved = dict(cursors)
    due = (row for row in rows if cursors.get(row.stage, row.minute) <= row.minute < before)
    by_stage = groupby(sorted(due, key=lambda row: (row.stage, row.minute)), key=lambda row: row.stage)
    for stage, minutes in by_stage:
        window: list[MinuteRow] = []
        for row in minutes:
            if window and row.minute - window[0].minute >= MAX_MINUTES:
                strata.append(_join(window))
                window = []
            window.append(row)
            if sum(r.candidate.tasks + r.baseline.tasks for r in window) >= MIN_TASKS:
                strata.append(_join(window))
                window = []
        if window and before - window[0].minute >= MAX_MINUTES:
            strata.append(_join(window))
        closed = [stratum.last_minute for stratum in strata if stratum.stage == stage]
        if closed:
            moved[stage] = closed[-1] + 1
    return sorted(strata, key=lambda stratum: (stratum.first_minute, stratum.stage)), moved


def merge_groups(parts: Iterable[Mapping[int, Group]]) -> dict[int, Group]:
    """Add up hash groups."""
    total: dict[int, Group] = {}
    for part in parts:
        for key, group in part.items():
            kept = total.get(key)
            total[key] = Group(kept.tasks + group.tasks, kept.failures + group.failures) if kept else group
    return total


def merge_slices(parts: Iterable[Slices]) -> Slices:
    """Add up slices of the same name, separately for each arm."""
    total: dict[str, tuple[SliceSums, SliceSums]] = {}
    for part in parts:
        for name, (candidate, baseline) in part.items():
            kept = total.get(name)
            total[name] = (kept[0] + candidate, kept[1] + baseline) if kept else (candidate, baseline)
    return total


def merge_differing(parts: Sequence[tuple[ArmSums, Differing | None]]) -> Differing | None:
    """Add up the differing tasks of one arm; None if any part has tasks and does not report which differ."""
    if any(part is None for arm, part in parts if arm.tasks):
        return None
    known = [part for _, part in parts if part is not None]
    pairs: dict[str, SliceSums] = {}
    for part in known:
        for name, sums in part.pairs.items():
            pairs[name] = pairs[name] + sums if name in pairs else sums
    decided = [part.decided for part in known if part.decided is not None]
    return Differing(
        sum(part.known_of for part in known), pairs, sum(decided) if len(decided) == len(known) else None
    )


def _join(window: Sequence[MinuteRow]) -> ClosedWindow:
    """Join the minutes to one window. Most windows have one minute, and most rows lack slices, pairs and cells."""
    first, last = window[0], window[-1]
    if first is last:
        return ClosedWindow(
            first.stage, first.minute, first.minute, first.candidate, first.baseline, first.groups,
            first.endpoints, first.candidate_differing, first.baseline_differing, first.candidate_cells,
            first.baseline_cells,
        )  # fmt: skip
    return ClosedWindow(
        stage=first.stage,
        first_minute=first.minute,
        last_minute=last.minute,
        candidate=sum((row.candidate for row in window), ArmSums()),
        baseline=sum((row.baseline for row in window), ArmSums()),
        groups=merge_groups(row.groups for row in window),
        endpoints=merge_slices(row.endpoints for row in window),
        candidate_differing=merge_differing([(row.candidate, row.candidate_differing) for row in window]),
        baseline_differing=merge_differing([(row.baseline, row.baseline_differing) for row in window]),
        candidate_cells=merge_groups(row.candidate_cells for row in window),
        baseline_cells=merge_groups(row.baseline_cells for row in window),
    )
