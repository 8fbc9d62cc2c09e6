"""The evidence report as Markdown. Pure: built from the document alone, so both say the same.

Names and reasons are user input and are escaped.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from controlplane.audit import sentences
from controlplane.web.display import NONE, count, money, p_value, percent, plural, points, share, signed
from rollout_app.engine.metrics import RATIOS, Metric

Document = Mapping[str, Any]
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~])")
_MOST = 20  # maximum rows of a table of endpoints


def as_markdown(report: Document) -> str:
    """Return the whole report."""
    parts: Sequence[Iterable[str]] = (
        _title(report), _change(report["what"]), _people(report["who"]),
        _part(report, "before", "Blast radius, before anything moved", _radius),
        _part(report, "shadow", "Shadow", _shadow), _part(report, "stages", "Stages", _stages),
        _part(report, "judgement", "Verdicts", _verdicts),
        _part(report, "review", "Both arms in the same minutes", _arms),
        _part(report, "realised", "After completion", _realised), _caveats(report),
        _part(report, "audit", "Proof", _proof),
    )  # fmt: skip
    lines = [line for part in parts for line in part]
    return "\n".join(lines).rstrip() + "\n"


def _part(report: Document, name: str, heading: str, write: Callable[[Any], Iterator[str]]) -> Iterator[str]:
    """Write a part below its heading. What could not be computed is not nothing."""
    lines = ["Could not be computed.", ""] if name in report["failed"] else list(write(report[name]))
    if lines:
        yield from (f"## {heading}", "", *lines)


def _title(report: Document) -> Iterator[str]:
    what = report["what"]
    before, after = what["baseline"]["number"], what["candidate"]["number"]
    yield f"# {_text(what['workload'])} in {_text(what['environment'])}: version {before} → {after}"
    yield ""
    yield f"State: **{what['state'].replace('_', ' ')}**. Owner: {_text(what['owner'])}. Rollout `{what['rollout']}`."
    if what["rollback_reason"]:
        yield f"Reason for the rollback: {_text(what['rollback_reason'])}"
    yield ""
    yield f"Why: {_text(report['why'])}"
    yield ""
    yield f"Written {_at(report['generated_at'])}."
    yield ""


def _change(what: Document) -> Iterator[str]:
    yield "## What changes"
    yield ""
    for arm in ("baseline", "candidate"):
        version = what[arm]
        note = f": {_text(version['note'])}" if version["note"] else ""
        named = f"version {version['number']} by {_text(version['author'])}"
        yield f"- {arm.capitalize()}: {named}{note} (`{version['digest']}`)"
    yield ""
    rows = [
        [f"`{each['path']}`", each["kind"], _value(each["before"]), _value(each["after"])]
        for each in what["changes"]
    ]
    yield from _table(["where", "change", "before", "after"], rows)
    stages = ", ".join(_stage_name(stage) for stage in what["plan_stages"])
    yield f"Plan {_text(what['plan'])}: {stages}."
    yield ""


def _people(who: Document) -> Iterator[str]:
    yield "## Who"
    yield ""
    yield f"Proposed by {_text(who['proposer'])}. Approvals needed: {who['approvals_needed']}."
    yield ""
    approvals = [
        [_text(each["by"]) + _void(each), "the start" if each["stage"] is None else f"stage {each['stage'] + 1}",
         _at(each["at"]), _text(each["reason"]), f"`{each['binding'][:16]}…`"]
        for each in who["approvals"]
    ]  # fmt: skip
    if approvals:
        yield from _table(["approved by", "what", "when", "reason", "bound to"], approvals)
    history = [
        [_at(each["at"]), _event(each), _text(each["by"]), _text(each["reason"])] for each in who["history"]
    ]
    yield from _table(["when", "event", "by", "reason"], history)


def _void(approval: Document) -> str:
    """Return why the approval does not count, in brackets; empty if it counts."""
    if approval["counts"]:
        return ""
    return " (before a change: it does not count)" if approval["withdrawn_at"] is None else " (withdrawn)"


def _event(each: Document) -> str:
    if each["event"] == "approve" and each["kind"] == "system":
        return "no approval is required"
    verb = sentences.VERBS.get(f"rollout.{each['event']}") or each["event"].replace("_", " ")
    return verb.removesuffix(" of").rstrip(",")


def _radius(before: Document | None) -> Iterator[str]:
    if before is None:
        yield "Not known."
        yield ""
        return
    yield before["sentence"]
    yield ""
    yield from (f"- {_text(each['sentence'])}" for each in before["endpoints"][:_MOST])
    yield ""
    if before["unknown"]:
        yield "Not known:"
        yield ""
        yield from (f"- {_text(sentence)}" for sentence in before["unknown"])
        yield ""


def _shadow(shadow: Document | None) -> Iterator[str]:
    if shadow is None:
        yield "No decision was made in shadow."
        yield ""
        return
    decisions = plural(shadow["decisions"], "decision")
    yield f"- {decisions}; both chose the same first model in {percent(shadow['agreement'])}"
    errors = percent(shadow["error_rate"], 2)
    yield f"- evaluation errors: {errors}"
    for model, asked in shadow["decided"]["asked"].items():
        yield f"- tasks that would ask {_text(model)}: {_between(asked, percent)}"
    yield f"- {_text(shadow['latency_change']['sentence'])}"
    mirror = shadow["mirror"]
    if mirror is None:
        yield "- no task was mirrored, so cheap and strong models cannot be compared"
    else:
        between = f"{points(mirror['low'])} to {points(mirror['high'])}"
        yield (
            f"- {count(mirror['tasks'])} mirrored tasks: success {points(mirror['difference'])} ({between}; "
            f"exact paired test {p_value(mirror['p_value'])}); spent {_money(mirror['spent_nusd'])}"
        )
    yield ""


def _stages(stages: Sequence[Document]) -> Iterator[str]:
    rows = [
        [_stage_name(stage), _at(stage["entered_at"]), _at(stage["left_at"]),
         *(_arm(stage["arms"][arm]) for arm in ("baseline", "candidate"))]
        for stage in stages
    ]  # fmt: skip
    yield from _table(["stage", "from", "to", "baseline", "candidate"], rows)


def _arm(sums: Document | None) -> str:
    if sums is None or not sums["tasks"]:
        return "no tasks"
    graded = sums["successes"] + sums["failures"]
    success = percent(sums["successes"] / graded) if graded else "no grade"
    return f"{plural(sums['tasks'], 'task')}, success {success}"


def _verdicts(judgement: Document | None) -> Iterator[str]:
    if judgement is None:
        yield "Nothing has been judged."
        yield ""
        return
    rows = [
        [_guardrail(each), each["result"].replace("_", " "), _figure(each, "estimate"),
         f"{_figure(each, 'low')} to {_figure(each, 'high')}", _margin(each),
         f"{count(each['n_candidate'])} / {count(each['n_baseline'])}", _harm(each), _log_e(each["log_e_safe"])]
        for each in judgement["verdicts"]
    ]  # fmt: skip
    names = ["guardrail", "verdict", "estimate", "interval", "margin", "tasks", "ln E harm", "ln E safe"]
    yield from _table(names, rows)
    said = "none that counts" if judgement["log_e"] is None else f"ln E = {_log_e(judgement['log_e'])}"
    yield f"Overall evidence of harm: {said}; the rollout rolls back at 3.00."
    yield ""
    yield (
        "A guardrail's evidence of harm counts towards this only if its estimate reaches the margin; evidence of less "
        "harm than that is marked as not counted."
    )
    yield ""


def _arms(review: Document | None) -> Iterator[str]:
    if review is None:
        yield "The rollout has not started."
        yield ""
        return
    labels = {
        "cost_per_success": "Cost per success",
        "cost_per_task": "Cost per task",
        "failures": "Failures",
        "retries": "Retries",
    }
    rows = [
        [label, *_changed(review["changes"][name], is_rate=name in ("failures", "retries"))]
        for name, label in labels.items()
    ]
    yield from _table(["figure", "change", "between"], rows)
    yield f"Saved on the candidate's tasks: {_saved(review['saved_nusd'])}."
    yield ""
    yield _text(review["diagnosis"]["sentence"])
    yield ""


def _realised(found: Document | None) -> Iterator[str]:
    if found is None:
        yield "There is nothing to compare: the rollout is not completed, or was completed just now."
        yield ""
        return
    yield from (f"- {_text(sentence)}" for sentence in found["sentences"])
    yield ""
    rows = [
        [f"{part['start']:%Y-%m-%d}", count(part["tasks"]), percent(part["success"]),
         _money(part["cost_per_success_nusd"])]
        for part in found["parts"]
    ]  # fmt: skip
    yield from _table(["from", "tasks", "success", "cost per success"], rows)


def _caveats(report: Document) -> Iterator[str]:
    yield "## Caveats"
    yield ""
    yield from [f"- {_text(sentence)}" for sentence in report["caveats"]] or ["None."]
    yield ""


def _proof(audit: Document) -> Iterator[str]:
    if not audit["entries"]:
        return
    yield (
        f"{audit['entries']} audit entries, {audit['first']} to {audit['last']}, the last with hash "
        f"`{audit['last_hash']}`. `manage.py audit verify` proves that they are unchanged; the JSON of this report "
        "has the sums from which every verdict can be computed again."
    )
    yield ""


# --- figures -----------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        yield "None."
        yield ""
        return
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _text(value: Any) -> str:
    """Return user input on one line, escaped."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def _value(value: Any) -> str:
    if value is None:
        return NONE
    plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _text(plain if len(plain) <= 300 else f"{plain[:300]}…")


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else NONE


def _stage_name(stage: Document) -> str:
    return share(stage["share_pcm"]) if stage["mode"] == "percentage" else str(stage["mode"])


def _money(nusd: float | None) -> str:
    return "not known" if nusd is None else money(nusd)


def _guardrail(verdict: Document) -> str:
    absolute = " (absolute)" if verdict["name"] != verdict["metric"] else ""
    return Metric(verdict["metric"]).spec.label + absolute


def _figure(verdict: Document, name: str) -> str:
    """Return a verdict's figure as the console writes it: points, a relative change, or an absolute figure."""
    value, metric = verdict[name], verdict["metric"]
    if value is None:
        return "not known"
    if verdict["name"] != metric:
        return money(value) if metric == "cost_per_success" else percent(value)
    return signed(percent(abs(value)), round(value, 4)) if metric in RATIOS else points(value)


def _margin(verdict: Document) -> str:
    """Return the margin, and the one for the move that is judged if it differs."""
    margin, asked = (_figure(verdict, name).removeprefix("+") for name in ("margin", "stage_margin"))
    return f"{margin} ({asked} to advance)" if verdict["gates"] and asked != margin else margin


def _harm(verdict: Document) -> str:
    """Return the evidence of harm that counts towards a rollback, or the evidence with a mark that it does not."""
    if not verdict["counted"]:
        return f"{_log_e(verdict['log_e_harm'])} (not counted)"
    return _log_e(verdict["log_e_counted"])


def _log_e(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _between(bounds: Document, write: Any) -> str:
    low, high = write(bounds["low"]), write(bounds["high"])
    expected = "" if bounds["expected"] is None or low == high else f", {write(bounds['expected'])} expected"
    return low if low == high else f"{low} to {high}{expected}"


def _changed(change: Document | None, *, is_rate: bool) -> list[str]:
    if change is None:
        return [NONE, "unknown"]
    if is_rate:
        return [points(change["estimate"]), f"{points(change['low'])} to {points(change['high'])}"]
    low, estimate, high = (
        signed(percent(abs(change[n])), round(change[n], 4)) for n in ("low", "estimate", "high")
    )
    return [estimate, f"{low} to {high}"]


def _saved(saved: Document | None) -> str:
    if saved is None:
        return "unknown"
    return f"{money(saved['estimate'])} (between {money(saved['low'])} and {money(saved['high'])})"
