"""Read closed windows in the form that the measures add."""

from rollout_app.engine.evidence import ArmSums, ClosedWindow
from rollout_app.engine.guarded import Failures
from rollout_app.engine.measures.base import WindowView
from rollout_app.engine.measures.shares import both_expected
from rollout_app.engine.measures.slices import FollowedSlices, differing_sums
from rollout_app.engine.measures.units import Units
from rollout_app.engine.values import replace


def compared_view(
    window: ClosedWindow, units: Units | None, followed: FollowedSlices | None, failed: Failures
) -> WindowView:
    """Return the view of a percentage stage's window. `followed`: the slices, if they are judged."""
    t, c = window.candidate, window.baseline
    nt, nc = both_expected(window)
    failures = units.take(window) if units else [(t.graded, t.failures, c.graded, c.failures)]
    return WindowView(
        window,
        failures,
        (nt - min(nt, t.graded), nt, nc - min(nc, c.graded), nc),
        (nt - min(nt, t.costs.n), nt, nc - min(nc, c.costs.n), nc),
        failed.guard("differing tasks", lambda: differing_sums(window), None),
        failed.guard("slices", lambda: followed.take(window), {}) if followed is not None else {},
    )


def lone_view(window: ClosedWindow, units: Units | None) -> WindowView:
    """Return the view of the full stage's window, for the absolute bounds: they need no baseline.

    A few routers may lag behind and still serve the baseline: their tasks are left out.
    """
    window = replace(window, baseline=ArmSums(), baseline_cells={})
    t, nt = window.candidate, both_expected(window)[0]
    failures = units.take_alone(window) if units else [(t.graded, t.failures, 0, 0)]
    without = (nt - min(nt, t.graded), nt, 0, 0), (nt - min(nt, t.costs.n), nt, 0, 0)
    return WindowView(window, failures, *without, alone=True)
