"""What the audit pages show of an entry: its changes, the verdicts in its evidence, and the page of its target."""

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import transaction

from controlplane.audit import checkpoints, log, pages, subjects, verification
from controlplane.audit.models import Entry, Head
from controlplane.core.actors import SYSTEM, Actor
from tests.support.pages import text
from tests.support.people import People

THIN = "\u202f"


def write(action: str = "plan.edit", target: tuple[str, str] = ("plan", "slow"), **fields: Any) -> Entry:
    with transaction.atomic():
        return log.record(**{"actor": SYSTEM, **fields}, action=action, target=target)


def shown(people: People, entry: Entry) -> Any:
    return people("tom", "viewer").get(f"/console/audit/{entry.seq}/")


# --- changes -------------------------------------------------------------------------------------------

CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"path": "/a", "before": 1, "after": 2}, {"path": "a", "kind": "changed", "before": 1, "after": 2}),
    ({"path": "/a/b", "after": ""}, {"path": "a.b", "kind": "added", "before": None, "after": ""}),
    ({"path": "/a~1b~0", "before": 0}, {"path": "a/b~", "kind": "removed", "before": 0, "after": None}),
    (
        {"path": "/mirror_pcm", "before": 500, "after": None},
        {"path": "mirror", "kind": "changed", "before": f"0.5{THIN}%", "after": None},
    ),
    (
        {"path": "/shares_pcm", "before": True, "after": [5_000, "x", 100_000]},
        {"path": "shares", "kind": "changed", "before": True, "after": [f"5{THIN}%", "x", f"100{THIN}%"]},
    ),
    (
        {"path": "/stages", "after": [{"share_pcm": 1_000.0, "min_tasks": 1_000}]},
        {
            "path": "stages",
            "kind": "added",
            "before": None,
            "after": [{"share": f"1{THIN}%", "min_tasks": 1_000}],
        },
    ),
]


@pytest.mark.parametrize(("change", "as_shown"), CHANGES)
def test_each_change_is_shown_with_its_path_and_both_sides(
    change: dict[str, Any], as_shown: dict[str, Any]
) -> None:
    assert pages.differences({"diff": [change]}) == [as_shown]


def test_fields_added_without_a_value_are_counted_and_left_out(people: People) -> None:
    after: dict[str, Any] = {
        "none": None,
        "text": "",
        "list": [],
        "object": {},
        "zero": 0,
        "off": False,
        "name": "slow",
    }
    response = shown(people, write(after=after))
    assert [change["path"] for change in response.context["differences"]] == ["name", "off", "zero"]
    assert response.context["empty"] == 4
    response = shown(people, write(before={"a": 1, "b": 2}, after={"a": None}))
    assert [(change["path"], change["kind"]) for change in response.context["differences"]] == [
        ("a", "changed"),
        ("b", "removed"),
    ]
    assert response.context["empty"] == 0


# --- evidence --------------------------------------------------------------------------------------------


def test_a_verdict_is_a_row_with_each_figure(people: People) -> None:
    """Decimals are text in the log. What is not a number is left empty, and what is not a verdict is left out."""
    verdict = {
        "name": "failure", "result": "fail", "estimate": "0.05", "low": 0.01, "high": 0.09, "margin": "0.02",
        "n_candidate": 400, "n_baseline": 410, "other": 1,
    }  # fmt: skip
    response = shown(people, write(evidence={"verdicts": [verdict, "x", {"name": "cost", "low": "x"}]}))
    row = {
        "name": "failure", "result": "fail", "estimate": 0.05, "low": 0.01, "high": 0.09, "margin": 0.02,
        "n_candidate": 400.0, "n_baseline": 410.0,
    }  # fmt: skip
    assert response.context["verdicts"] == [row, dict.fromkeys(row) | {"name": "cost"}]
    page = text(response)
    assert "<td>Failure</td>" in page and "5.00" in page and "410" in page
    assert "The complete evidence, as recorded" in page and "&quot;other&quot;: 1" in page


def test_an_absolute_cost_is_money(people: People) -> None:
    """A bound on the cost per success is in nano-dollars, which is no share."""
    verdict = {
        "name": "cost_per_success_bound",
        "metric": "cost_per_success",
        "result": "fail",
        "margin": 12_000_000,
    }
    page = text(
        shown(people, write(evidence={"verdicts": [verdict | {"estimate": 15_000_000, "low": 13_000_000}]}))
    )
    assert "$0.0150" in page and "$0.0120" in page and "1,000" not in page


@pytest.mark.parametrize(
    ("count", "says"), [(1, "1 finding in 1 entry."), (1_200, "1 finding in 1,200 entries.")]
)
def test_findings_are_counted_in_entries(
    people: People, monkeypatch: pytest.MonkeyPatch, count: int, says: str
) -> None:
    finding = SimpleNamespace(kind="altered", where="", seq=1, sentence="It differs.")
    found = SimpleNamespace(findings=[finding], count=count)
    monkeypatch.setattr(verification, "verify", lambda **_: found)
    assert says in text(people("ada", "viewer").post("/console/audit/verify/"))


@pytest.mark.parametrize(
    "evidence", [None, "größer", [1], {"verdicts": None}, {"code": "x"}, {"verdicts": []}]
)
def test_evidence_without_verdicts_is_shown_as_it_was_recorded(people: People, evidence: Any) -> None:
    response = shown(people, write(evidence=evidence))
    assert response.context["verdicts"] == []
    page = text(response)
    assert ("Evidence</h2>" in page) is (evidence is not None)
    if evidence == "größer":
        assert "größer" in page


# --- facts and links ---------------------------------------------------------------------------------------

PAGES = [
    ("rollout", "01900000-0000-7000-8000-000000000001", "rollouts/01900000-0000-7000-8000-000000000001/"),
    ("workload", "summaries", "workloads/summaries/"),
    ("version", "summaries/3", "workloads/summaries/versions/3/"),
    ("assignment", "production/summaries", "workloads/summaries/"),
    ("environment", "production", "fleet/production/"),
    ("team", "data", ""),
]


@pytest.mark.parametrize(("kind", "target", "address"), PAGES)
def test_an_entry_links_to_its_target(kind: str, target: str, address: str) -> None:
    found = pages.target_page(Entry(target_kind=kind, target_id=target, outcome="done"), {})
    assert found == (f"/console/{address}" if address else "")


def test_a_refused_entry_links_only_to_a_target_that_exists() -> None:
    refused = Entry(target_kind="workload", target_id="a", outcome="refused")
    assert pages.target_page(refused, {}) == "/console/workloads/a/", "not a kind with names"
    assert pages.target_page(refused, {"workload": {"a": "A"}}) == "/console/workloads/a/"
    assert pages.target_page(refused, {"workload": {"b": "B"}}) == ""
    refused.outcome = "done"
    assert pages.target_page(refused, {"workload": {"b": "B"}}) == "/console/workloads/a/"


def test_an_entry_shows_who_did_it_and_the_chain(people: People) -> None:
    first = write()
    entry = write(
        "assignment.pin", ("assignment", "production/summaries"),
        actor=Actor("key", "k1", "key script"), environment="production", workload="summaries",
        reason="incident 231", approvals=[{"by": "eva"}], before={"a": 1}, after={"a": 2},
    )  # fmt: skip
    response = shown(people, entry)
    body, page = response.context["body"], text(response)
    assert (response.context["entry"], response.context["behind"]) == (entry, "")
    assert response.context["sentence"] == "key script pinned summaries in production"
    for fact in (
        "none: the key belongs to nobody", "<code>k1</code>", "assignment production/summaries", "incident 231",
        "<dt>Environment</dt><dd>production", "<dt>Workload</dt><dd>summaries", entry.hash, first.hash,
        body["before_sha256"], body["after_sha256"], "eva", f"/console/audit/{first.seq}/",
        "Open the assignment", "/console/workloads/summaries/",
    ):  # fmt: skip
        assert fact in page
    page = text(shown(people, write(actor=Actor("user", "901", "eva", "901"))))
    assert "(a person)" in page and "<dt>Key</dt>" not in page


# --- the list and its filter -------------------------------------------------------------------------------


def test_the_filter_is_cleared_only_if_something_was_filtered(people: People) -> None:
    write()
    client = people("tom", "viewer")
    for query, narrowed in (
        ({}, False),
        ({"actor": ""}, False),
        ({"page": "1"}, False),
        ({"actor": "P"}, True),
    ):
        assert client.get("/console/audit/", query).context["narrowed"] is narrowed


def test_an_action_that_is_not_in_the_list_can_be_filtered_by_a_link(people: People) -> None:
    write("thing.take_apart")
    response = people("tom", "viewer").get("/console/audit/", {"action": "thing.take_apart"})
    assert [entry.action for entry, *_ in response.context["listed"]] == ["thing.take_apart"]
    assert '<option value="thing.take_apart" selected>' in text(response)
    choices = pages.FilterForm({"action": "plan.edit"}).fields["action"].widget.choices
    assert [choice for choice in choices if choice[0] == "plan.edit"] == [], "it is in its group"


def test_only_names_are_suggested_each_once_in_order(people: People) -> None:
    for environment in ("staging", "", "production", "staging"):
        write(environment=environment)
    context = people("tom", "viewer").get("/console/audit/").context
    assert context["options"]["audit-environments"] == ["production", "staging"]
    assert context["options"]["audit-workloads"] == []
    assert "Pointsman" in context["options"]["audit-people"]
    assert context["limits"] is None
    for field, options in (("actor", "people"), ("environment", "environments"), ("workload", "workloads")):
        assert context["form"].fields[field].widget.attrs["list"] == f"audit-{options}"


def test_suggestions_are_limited_only_beyond_the_limit(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    for environment in ("a", "b"):
        write(environment=environment)
    client = people("tom", "viewer")
    count = Entry.objects.count()
    for newest, each, limited in ((count + 1, 2, False), (count, 2, True), (count + 1, 1, True)):
        monkeypatch.setattr(pages, "_OF_THE_NEWEST", newest)
        monkeypatch.setattr(pages, "_MOST_OPTIONS", each)
        limits = client.get("/console/audit/").context["limits"]
        assert limits == ({"entries": newest, "each": each} if limited else None)


# --- verification ------------------------------------------------------------------------------------------


def test_the_page_verifies_only_on_request(
    people: People, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VAR_DIR = tmp_path
    monkeypatch.setattr(subjects, "_registered", {})  # no action created the reader
    client = people("tom", "viewer")
    write()
    checkpoints.make()
    response = client.get("/console/audit/verify/")
    assert response.context["found"] is None
    assert (response.context["head"], response.context["last"].seq) == (
        Head.objects.get(),
        Head.objects.get().seq,
    )
    page = text(client.post("/console/audit/verify/"))
    assert "nothing has been rewritten" in page
    Head.objects.update(chain="other")
    page = text(client.post("/console/audit/verify/"))
    assert "1 finding in" in page and "the head names another log (other)" in page
