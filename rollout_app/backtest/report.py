"""A backtest as text and as data."""

from collections.abc import Mapping
from typing import Any

from pointsman.plurals import counted
from rollout_app.backtest import drawn_report
from rollout_app.backtest.curve import RouterScore
from rollout_app.backtest.run import Backtest, Counts, Line
from rollout_app.backtest.single_log import Agreement
from rollout_app.backtest.tally import Interval
from rollout_app.backtest.threshold import cheapest_within, is_sure, of_unknown_cost

NUSD = 10**9


def as_text(result: Backtest, *, bar: float | None = None) -> str:
    """Return tables for a terminal, and sentences about the results."""
    lines = [coverage(result), "", _table(result), ""]
    lines += [sentence for line in result.policies[:5] for sentence in sentences(line, result)]
    if result.scores:
        lines += ["", _scores(result.scores)]
    if bar is not None:
        lines += ["", _against_bar(result, bar)]
    return "\n".join(lines)


def as_document(result: Backtest) -> dict[str, Any]:
    """Return plain data: costs in US dollars, shares 0 … 1, null for unknown figures."""
    return {
        "tasks": {
            "read": result.read, "compared": result.compared, "priced": result.priced,
            "left_out": dict(result.left_out), "unpriced": dict(result.unpriced), "unranked": result.unranked,
        },
        "weak": result.weak,
        "strong": result.strong,
        "policies": [_line(line) for line in result.policies],
        "models": [_line(line) for line in result.models],
        "oracle": _line(result.oracle),
        "frontier": [
            {"name": point.name, "cost_per_task_usd": point.cost / NUSD, "accuracy": point.quality}
            for point in result.frontier
        ],
        "aiq": result.aiq,
        "scores": {
            name: {"apgr": score.apgr, "cpt_50": score.cpt_50, "cpt_80": score.cpt_80}
            for name, score in result.scores.items()
        },
    }  # fmt: skip


def coverage(result: Backtest) -> str:
    read, priced = counted(result.read, "task"), f"{result.priced:,} of them with every cost known"
    text = f"{read} read, {result.compared:,} compared, {priced}."
    for name, counts in (("no known outcome of", result.left_out), ("no known cost of", result.unpriced)):
        if counts:
            lacking = (f"{counted(n, 'has', 'have')} {name} {model}" for model, n in sorted(counts.items()))
            text += f" {', '.join(lacking)}."
    if result.unranked:
        unranked = counted(
            result.unranked, f"has no {result.score} and is", f"have no {result.score} and are"
        )
        text += f" {unranked} not ranked."
    return text


def agreement_text(name: str, found: Agreement) -> str:
    """Describe what a log with one model per task says about the policy, and what it cannot say."""
    share = _percent(found.agreed / found.tasks, 1) if found.tasks else "–"
    lines = [
        f"{name}: in {found.agreed:,} of {found.tasks:,} logged tasks ({share}) the policy asks the same models. "
        f"{found.graded:,} of these are graded.",
    ]
    if found.accuracy.value is not None:
        lines.append(
            f"  Of the graded ones, {_percent(found.accuracy.value, 2)} succeeded ({_between(found.accuracy)}), at "
            f"{_dollars(found.cost_per_success.value)} dollars per success."
        )
    for (asked, would), count in found.moves.most_common(10):
        lines.append(
            f"  {counted(count, 'task')} went to {asked or 'no model'}; the policy would ask {would}, outcome unknown."
        )
    lines.append("  Nothing is projected from this: a log says nothing about models that were not asked.")
    if found.drawn is not None:
        lines.append(drawn_report.as_text(name, found.drawn))
    return "\n".join(lines)


def agreement_document(found: Agreement) -> dict[str, Any]:
    """Return the same as plain data. Tasks on which the models differ have unknown outcomes and no figures."""
    return {
        "tasks": found.tasks,
        "agreed": found.agreed,
        "graded": found.graded,
        "accuracy": _interval(found.accuracy),
        "cost_per_success_usd": _interval(found.cost_per_success, NUSD),
        "moves": [
            {"asked": asked, "would_ask": would, "tasks": count}
            for (asked, would), count in found.moves.most_common(50)
        ],
        "drawn": None if found.drawn is None else drawn_report.as_document(found.drawn),
    }


_HEAD = ("", "success", "95 % interval", "$ a success", "$ a task", "saving", "mix", "PGR", "escalated")
_SCORED = ("mean score",)  # a column only where the tasks have scores


def _table(result: Backtest) -> str:
    is_scored = bool(result.oracle.totals.scored)
    rows: list[tuple[str, ...]] = [_HEAD + _SCORED * is_scored]
    named = [
        *((line.name, line) for line in result.policies),
        *((f"always {line.name}", line) for line in result.models),
        ("oracle", result.oracle),
    ]
    rows += [_row(name, line) + (_score(line),) * is_scored for name, line in named]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip


def _row(name: str, line: Line) -> tuple[str, ...]:
    counts = line.counts
    return (
        name,
        _percent(line.accuracy.value, 2),
        _between(line.accuracy),
        _dollars(line.cost_per_success.value),
        _dollars(line.cost_per_task.value),
        _percent(line.saving.value, 1),
        _percent(line.random_mix, 2),
        _percent(line.pgr, 1),
        _percent(counts.escalated / line.totals.n if counts and line.totals.n else None, 1),
    )


def _score(line: Line) -> str:
    return "–" if line.totals.mean_score is None else f"{line.totals.mean_score:.4f}"


def sentences(line: Line, result: Backtest) -> list[str]:
    """Return the conclusions. A saving is claimed only if its interval excludes zero."""
    saving, found = line.saving, []
    if saving.value is None:
        found.append(f"{line.name}: {_why_no_saving(line, result)}.")
    elif saving.low is None or saving.high is None:
        found.append(f"{line.name}: too few tasks to say what it saves.")
    elif saving.low > 0:
        found.append(
            f"{line.name} saves {_range(saving)} of the cost per success of always asking {result.strong}."
        )
    elif saving.high < 0:
        costs_more = Interval(-saving.value, -saving.high, -saving.low)
        found.append(
            f"{line.name} costs {_range(costs_more)} more per success than always asking {result.strong}."
        )
    else:
        found.append(
            f"{line.name} shows no difference in cost per success from always asking {result.strong}."
        )
    if (change := line.accuracy_change).value is not None and change.high is not None and change.high < 0:
        found.append(
            f"  It gets {-change.value * 100:.1f} points fewer right ({-change.high * 100:.1f} to "
            f"{-(change.low or 0) * 100:.1f})."
        )
    if line.random_mix is not None and line.accuracy.value is not None and line.accuracy.high is not None:
        if line.accuracy.high < line.random_mix:
            found.append(
                f"  A random mix of the single models gets {_percent(line.random_mix, 2)} right for the same money: "
                "the policy's rules do worse than chance."
            )
        elif line.accuracy.low is not None and line.accuracy.low <= line.random_mix:
            found.append(
                f"  A random mix of the single models gets {_percent(line.random_mix, 2)} right for the same money: "
                "the policy's rules are not shown to do better."
            )
    if line.counts is not None and line.counts.missing:
        names = ", ".join(f"{name} ({count:,})" for name, count in line.counts.missing.most_common(5))
        found.append(f"  Inputs missing from the tasks, so that rules did not match: {names}.")
    return found


def _why_no_saving(line: Line, result: Backtest) -> str:
    if not line.totals.priced:
        return "its cost per success is unknown, because no task has all costs"
    if line.cost_per_success.value is None:
        return "its cost per success is unknown, because nothing succeeded"
    strong = next(one for one in result.models if one.name == result.strong)
    if strong.cost_per_success.value is None:
        return f"no saving can be computed, because {result.strong} never succeeded"
    return f"no saving can be computed, because {result.strong} is free"


def _scores(scores: Mapping[str, RouterScore]) -> str:
    rows = ["As a ranking of tasks (RouteLLM): APGR, CPT(50 %), CPT(80 %)"]
    for name, score in scores.items():
        apgr = "–" if score.apgr is None else f"{score.apgr:.3f}"
        rows.append(f"  {name}: {apgr}, {_percent(score.cpt_50, 2)}, {_percent(score.cpt_80, 2)}")
    return "\n".join(rows)


def _against_bar(result: Backtest, bar: float) -> str:
    best = cheapest_within(result, bar)
    if best is None and (others := of_unknown_cost(result, bar)):
        return (
            f"{', '.join(others)}: the bar of {_percent(bar, 1)} is met, but the cost per success is unknown."
        )
    if best is None:
        return f"None of them meets the bar of {_percent(bar, 1)}."
    sure = is_sure(best, bar)
    return (
        f"The cheapest that meets the bar of {_percent(bar, 1)}: {best.name} "
        f"({_percent(best.accuracy.value, 2)} right, {_dollars(best.cost_per_success.value)} per success)"
        + ("." if sure else "; its interval reaches below the bar, so more tasks are needed to be sure.")
    )


def _line(line: Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "tasks": line.totals.n,
        "successes": line.totals.successes,
        "accuracy": _interval(line.accuracy),
        "accuracy_change": _interval(line.accuracy_change),
        "cost_per_task_usd": _interval(line.cost_per_task, NUSD),
        "cost_per_success_usd": _interval(line.cost_per_success, NUSD),
        "cost_usd": line.totals.cost / NUSD if line.totals.priced else None,
        "mean_score": line.totals.mean_score,
        "scored": line.totals.scored,
        "saving": _interval(line.saving),
        "random_mix_accuracy": line.random_mix,
        "pgr": line.pgr,
        "routing": None if line.counts is None else _routing(line.counts, line.totals.n),
    }


def _routing(counts: Counts, tasks: int) -> dict[str, Any]:
    return {
        "rules": dict(counts.rules),
        "first_model": dict(counts.first),
        "last_model": dict(counts.last),
        "calls_per_task": counts.calls / tasks if tasks else None,
        "escalation_rate": counts.escalated / tasks if tasks else None,
        "fallback_rate": counts.fell_back / tasks if tasks else None,
        "retry_rate": counts.retried / tasks if tasks else None,
        "latency_ms_mean": counts.latency_sum / counts.latency_n if counts.latency_n else None,
        "latency_ms_p95": counts.latency.quantile(0.95) if counts.latency_n else None,
        "missing_inputs": dict(counts.missing),
    }


def _interval(found: Interval, unit: float = 1) -> dict[str, float | None]:
    low, high = (None if edge is None else edge / unit for edge in (found.low, found.high))
    return {"value": None if found.value is None else found.value / unit, "low": low, "high": high}


def _percent(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value * 100:.{digits}f} %"


def _between(found: Interval) -> str:
    return (
        "–"
        if found.low is None or found.high is None
        else f"{found.low * 100:.2f} … {found.high * 100:.2f} %"
    )


def _range(found: Interval) -> str:
    assert found.value is not None and found.low is not None and found.high is not None  # noqa: S101 — callers check
    return f"{found.value * 100:.1f} % ({found.low * 100:.1f} to {found.high * 100:.1f} %)"


def _dollars(nusd: float | None) -> str:
    return "–" if nusd is None else f"{nusd / NUSD:.6f}"
