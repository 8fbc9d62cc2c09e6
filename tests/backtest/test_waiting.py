"""Backtests and decisions while a person waits: on the page and in the API."""

import json
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from controlplane.core.errors import InvalidInput
from policies_app.documents.yaml_text import as_yaml
from policies_app.models import Environment, Workload
from rollout_app.backtest.run import Backtest
from rollout_app.outcomes import sampled_inputs
from rollout_app.rehearsal import waiting
from tests.support import builders
from tests.support.callers import Caller
from tests.support.pages import text
from tests.support.people import logged_in
from tests.support.task_logs import task_log

pytestmark = pytest.mark.django_db

SMALL, LARGE = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"
HEADER = f"prompt_tokens,{SMALL}:success,{SMALL}:cost_usd,{LARGE}:success,{LARGE}:cost_usd\n"
TASKS = HEADER + "".join(f"{n * 100},{n % 2},0.001,1,0.01\n" for n in range(1, 41))
DRAFT = f"""
format: 1
workload: summaries
models: {{small: {{model: {SMALL}}}, large: {{model: {LARGE}}}}}
default: small
rules: [{{id: heavy, when: request.prompt_tokens > 100, use: large}}]
fallback: [large, small]
"""


@pytest.fixture
def workload() -> Workload:
    found = builders.workload()
    builders.version(found)
    return found


def asked(workload: Workload, **changes: Any) -> waiting.Asked:
    given: dict[str, Any] = {
        "documents": waiting.documents_of(workload, [1]), "file_name": "tasks.csv", "content": TASKS.encode(),
    } | changes  # fmt: skip
    return waiting.Asked(**given)


def test_the_page_shows_the_result_of_a_version(workload: Workload) -> None:
    client = logged_in("vera", "viewer")
    address = reverse("console:backtest", args=[workload.name])
    file = SimpleUploadedFile("tasks.csv", TASKS.encode())
    answer = client.post(address, {"versions": ["1"], "file": file})
    page = text(answer)
    assert answer.status_code == 200, page
    assert "40 tasks read, 40 compared, 40 of them with every cost known." in page
    assert f"always {LARGE}" in page
    # What a random mix gets depends on the version's cost, so both are in the version's own paragraph.
    (told,) = re.findall(r"<p>(v1[^<]*)</p>", page)
    assert "A random mix of the single models gets" in told
    curve = json.loads(
        answer.content.decode().split('id="curve-data" type="application/json">')[1].split("<")[0]
    )
    assert [point["name"] for point in curve["policies"]] == ["v1"]


@pytest.mark.parametrize(
    ("extra", "opened"), [({}, False), ({"sweep": "nowhere"}, True), ({"mapping": "models: {"}, True)]
)
def test_fields_with_values_or_errors_are_not_folded(
    workload: Workload, extra: dict[str, str], opened: bool
) -> None:
    answer = logged_in("vera", "viewer").post(reverse("console:backtest", args=[workload.name]), extra)
    assert answer.status_code == 422
    assert ('<details class="pm-more" open>' in text(answer)) is opened


@pytest.mark.parametrize(
    ("posted", "said"),
    [
        ({"versions": ["1"]}, "Choose a file or included tasks. You chose neither."),
        ({"recorded": "gsm8k", "draft": " "}, "Choose a version, or write a draft."),
        ({"versions": ["1"], "recorded": "gsm8k"}, "1,307 have no known outcome of"),
        ({"draft": "format: [", "recorded": "gsm8k"}, "The draft is not valid"),
        ({"versions": ["1"], "recorded": "gsm8k", "sweep": "escalate:1:2"}, "write PLACE:LOW:HIGH:STEPS"),
        ({"versions": ["7"], "recorded": "gsm8k"}, "Select a valid choice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_page_explains_errors_and_keeps_the_input(
    workload: Workload, posted: dict[str, Any], said: str
) -> None:
    answer = logged_in("vera", "viewer").post(reverse("console:backtest", args=[workload.name]), posted)
    assert answer.status_code == 422
    page = text(answer)
    assert said in page
    assert posted.get("draft", "").strip() in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"content": b"x" * (waiting.MOST_BYTES + 1)}, "at most 4,194,304 are allowed here"),
        ({"file_name": "tasks.csv.gz"}, "not '.gz'"),
        ({"file_name": "tasks.parquet"}, "not '.parquet'"),
        ({"file_name": ""}, "not 'nothing'"),
        ({"content": b"\xff\xfe\x00"}, "tasks.csv"),
        ({"content": b""}, "There are no tasks."),
        ({"content": HEADER.encode()}, "There are no tasks."),
        ({"content": TASKS.encode(), "mapping": "models: ["}, "not valid YAML"),
        ({"log": "mylog"}, "There is no log 'mylog'"),
        ({"recorded": "mine"}, "There is no set 'mine'"),
        ({"recorded": "gsm8k", "log": "pointsman"}, "An included set of tasks takes no `log`."),
        ({"recorded": "gsm8k", "mapping": "models: {}"}, "An included set of tasks takes no `mapping`."),
        ({"log": "litellm", "sweep": "heavy:1:9:3"}, "A log with one model per task takes no `sweep`."),
        ({"log": "pointsman", "score": "turns"}, "A log with one model per task takes no `score`."),
        ({"log": "pointsman", "mapping": "models: {}"}, "A log of pointsman takes no `mapping`"),
        ({"grade": "ok"}, "A table takes no `grade`"),
        ({"sweep": "escalate:0:inf:3"}, "lower to a higher value in 2 to 101 steps"),
        ({"sweep": "escalate:0:1:100000000"}, "2 to 101 steps"),
        ({"documents": {}}, "Compare 1 to 5 versions."),
    ],
    ids=str,
)
def test_an_invalid_combination_is_explained(workload: Workload, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        waiting.run(asked(workload, **changes))
    assert said in refusal.value.detail


def test_too_much_work_for_a_request_is_refused(workload: Workload) -> None:
    rows = "".join(f"{n},1,0,1,0\n" for n in range(waiting.MOST_WORK + 1))
    with pytest.raises(InvalidInput, match="too many to wait for"):
        waiting.run(asked(workload, content=(HEADER + rows).encode()))
    assert isinstance(waiting.run(asked(workload)), Backtest)


def test_a_mapping_that_takes_too_long_for_a_request_is_refused(workload: Workload) -> None:
    """Each row is read once for each model, and 64 kB name 4,000 models."""
    many = "".join(f"  m{number}: {{success: s}}\n" for number in range(waiting.MOST_MAPPED + 1))
    with pytest.raises(InvalidInput, match="201 models and inputs; at most 200 are allowed here"):
        waiting.run(asked(workload, content=b"s\n1\n", mapping=f"models:\n{many}"))


def test_the_api_returns_the_same(workload: Workload) -> None:
    caller, path = Caller(), f"workloads/{workload.name}/backtest"
    answer = caller("POST", path, {"versions": [1], "file": {"name": "tasks.csv", "text": TASKS}})
    assert answer.status_code == 200, answer.json()
    assert answer.json()["tasks"] == {
        "read": 40,
        "compared": 40,
        "priced": 40,
        "left_out": {},
        "unpriced": {},
        "unranked": 0,
    }
    long = {"name": "tasks.csv", "text": TASKS + "1,1,0,1,0\n" * waiting.MOST_WORK}
    assert caller("POST", path, {"versions": [1], "file": long}).status_code == 422
    huge = {"name": "tasks.csv", "text": "x" * waiting.MOST_BYTES}
    assert caller("POST", path, {"versions": [1], "file": huge}).status_code == 413
    neither = caller("POST", path, {"versions": [1]})
    assert (neither.status_code, "both are missing" in neither.json()["detail"]) == (422, True)
    unread = caller("POST", path, {"versions": [1], "file": {"name": "support may.csv", "text": "a,b\n1\n"}})
    assert unread.json()["detail"].startswith("support may.csv can't be read")
    decided = caller(
        "POST", f"workloads/{workload.name}/decide", {"versions": [1], "request": {"prompt_tokens": 9_000}}
    )
    assert [one["rule"] for one in decided.json()["decisions"]] == ["heavy"]
    many = {"versions": [1], "draft": DRAFT, "requests": [{"prompt_tokens": n} for n in (5, 500, 9_000, "x")]}
    found = caller("POST", f"workloads/{workload.name}/decide", many).json()
    assert (found["requests"], found["differing"], found["moves"][0]["requests"]) == (4, 1, 1)
    assert found["versions"][0]["missing"] == {"request.prompt_tokens": 1}
    both = caller("POST", f"workloads/{workload.name}/decide", {**many, "request": {}})
    assert (both.status_code, "Give one of" in both.json()["detail"]) == (422, True)


def sampled(workload: Workload, number: int) -> Environment:
    environment = builders.environment()
    sampled_inputs.store([
        sampled_inputs.Sample(environment.pk, workload.name, f"s-{n}", {"prompt_tokens": 100 * n, "endpoint": "/x"})
        for n in range(number)
    ])  # fmt: skip
    return environment


def test_the_playground_compares_versions_over_sampled_inputs(workload: Workload) -> None:
    builders.version(workload, rules=[{"id": "all", "when": "request.prompt_tokens > 500", "use": "large"}])
    environment = sampled(workload, 20)
    client, address = logged_in("vera", "viewer"), reverse("console:playground", args=[workload.name])
    assert f"The last 20 that routers in {environment.name} sampled" in text(client.get(address))
    given = {"versions": ["1", "2"], "request": "{}", "recorded": f"sampled:{environment.name}"}
    answer = client.post(address, given)
    compared = answer.context["compared"]
    assert (compared.given, compared.looked_at, compared.differing) == (20, 20, 14)
    draft = as_yaml(workload.versions.get(number=2).document)
    panel = client.post(address, {**given, "versions": [], "text": draft}, HTTP_HX_REQUEST="true")
    assert "The last 20 requests" in text(panel), "from the editor, too"


def test_samples_of_other_environments_cannot_be_chosen(workload: Workload) -> None:
    client, address = logged_in("vera", "viewer"), reverse("console:playground", args=[workload.name])
    answer = client.post(address, {"versions": ["1"], "request": "", "recorded": "sampled:nowhere"})
    assert answer.status_code == 422
    empty = builders.environment()
    assert f"routers in {empty.name} sampled" not in text(client.get(address))


def test_the_api_compares_versions_over_sampled_inputs(workload: Workload) -> None:
    environment, caller = sampled(workload, 20), Caller("viewer")
    path = f"workloads/{workload.name}/decide"
    found = caller("POST", path, {"versions": [1], "draft": DRAFT, "sampled": environment.name}).json()
    assert (found["requests"], found["looked_at"]) == (20, 20)
    empty = caller("POST", path, {"versions": [1], "sampled": builders.environment().name})
    assert (empty.status_code, "sample_inputs" in empty.json()["detail"]) == (422, True)
    assert caller("POST", path, {"versions": [1], "sampled": "nowhere"}).status_code == 404


def test_the_playground_shows_two_versions_side_by_side(workload: Workload) -> None:
    builders.version(workload, rules=[{"id": "all", "when": "request.prompt_tokens > 0", "use": "large"}])
    client = logged_in("vera", "viewer")
    request = json.dumps({"prompt_tokens": 1_000, "endpoint": "/x"})
    answer = client.post(
        reverse("console:playground", args=[workload.name]), {"versions": ["1", "2"], "request": request}
    )
    assert [(d.name, d.rule) for d in answer.context["decisions"]] == [("v1", "default"), ("v2", "all")]
    small, large = sorted(answer.context["decisions"], key=lambda d: d.prompt_nusd)
    assert (small.model, small.prompt_nusd) == (SMALL, 150_000)
    assert large.model == LARGE


@pytest.mark.parametrize("request_", [{}, {"prompt_tokens": "900"}], ids=["not given", "another type"])
def test_the_playground_names_an_input_that_no_rule_could_use(
    workload: Workload, request_: dict[str, Any]
) -> None:
    address = reverse("console:playground", args=[workload.name])
    answer = logged_in("vera", "viewer").post(address, {"versions": ["1"], "request": json.dumps(request_)})
    assert "Not given, or not of the declared type: request.prompt_tokens." in text(answer)


@pytest.mark.parametrize(
    "request_text", ["{", "[]", "5", '{"history": 3}', "[" * 9_000], ids=lambda t: t[:14]
)
def test_an_invalid_request_is_refused_next_to_its_field(workload: Workload, request_text: str) -> None:
    answer = logged_in("vera", "viewer").post(
        reverse("console:playground", args=[workload.name]), {"versions": ["1"], "request": request_text}
    )
    assert answer.status_code == 422


def test_the_playground_compares_versions_over_recorded_inputs(workload: Workload) -> None:
    builders.version(workload, rules=[{"id": "all", "when": "request.turns > 2", "use": "large"}])
    table = f"prompt_tokens,turns,endpoint,{SMALL}:success\n" + "".join(
        f"{n},{'' if n % 4 == 0 else n % 4},/x,1\n" for n in range(1, 1_201)
    )
    answer = logged_in("vera", "viewer").post(
        reverse("console:playground", args=[workload.name]),
        {"versions": ["1", "2"], "request": "{}", "file": SimpleUploadedFile("tasks.csv", table.encode())},
    )
    compared = answer.context["compared"]
    assert (compared.given, compared.looked_at, compared.differing) == (1_200, 1_000, 250)
    assert compared.moves == [(SMALL, LARGE, 250)]
    by_name = {one.name: one for one in compared.versions}
    assert by_name["v2"].missing == {"request.turns": 250}
    assert by_name["v1"].priced == 1_000
    assert len(compared.shown) == 20
    assert all({one.model for one in found} == {SMALL, LARGE} for _, found in compared.shown)
    page = text(answer).replace("\u202f", ",")
    assert "250 of the last 1,000 requests differ" in page and "Not usable" in page


def test_the_panels_of_the_editor_use_its_text_and_return_a_fragment(workload: Workload) -> None:
    client, panel = logged_in("vera", "viewer"), {"HX-Request": "true"}
    draft = as_yaml(workload.versions.get(number=1).document)
    draft = re.sub(r"prompt_tokens > \d+", "prompt_tokens > 50", draft)
    for name, posted, says in (
        ("playground", {"request": '{"prompt_tokens": 5}'}, "draft"),
        ("playground", {"recorded": "gsm8k"}, "of the last 1,000 requests differ"),
        ("backtest", {"file": SimpleUploadedFile("tasks.csv", TASKS.encode())}, "40 tasks read, 40 compared"),
    ):
        address = reverse(f"console:{name}", args=[workload.name])
        form = text(client.get(address, headers=panel))
        assert "Uses the text above, saved or not" in form and "<html" not in form
        assert f'id="tried-{name}"' in form and f'id="{name}_file"' in form and 'name="draft"' not in form
        answer = client.post(address, {"versions": ["1"], "text": draft, **posted}, headers=panel)
        part = text(answer).replace("\u202f", ",")
        assert (answer.status_code, "<html" in part, "<form" in part) == (200, False, False)
        assert says in part


@pytest.mark.parametrize("name", ["playground", "backtest"])
def test_a_refusal_in_the_panel_is_shown_there(workload: Workload, name: str) -> None:
    """htmx does not swap in responses to refused requests, and the editor's text is not part of what it replaces."""
    posted = {"versions": ["1"], "text": "format: [", "recorded": "gsm8k"}
    address = reverse(f"console:{name}", args=[workload.name])
    answer = logged_in("vera", "viewer").post(address, posted, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "The draft is not valid" in text(answer) and 'role="alert"' in text(answer)


def test_the_editor_has_both_panels(workload: Workload) -> None:
    client = logged_in("ada", "admin")
    page = text(client.get(reverse("console:new_version", args=[workload.name])))
    for name in ("playground", "backtest"):
        assert f'hx-get="{reverse(f"console:{name}", args=[workload.name])}"' in page


@pytest.mark.parametrize("tokens", [None, "many", -1, True, 10**30, 1.5], ids=str)
def test_an_unknown_cost_is_not_zero(workload: Workload, tokens: Any) -> None:
    documents = waiting.documents_of(workload, [1])
    (decided,) = waiting.decide(documents, {"prompt_tokens": tokens}, {SMALL: (0.15, 0.6), LARGE: (3, 15)})
    assert decided.prompt_nusd is None


def test_a_task_log_is_estimated_on_the_page_and_in_the_api(workload: Workload) -> None:
    file = SimpleUploadedFile("tasks.jsonl", task_log(workload, 400).encode())
    posted = {"versions": ["1"], "file": file, "log": "pointsman"}
    page = text(logged_in("vera", "viewer").post(reverse("console:backtest", args=[workload.name]), posted))
    assert "400 tasks with a drawn arm show what it would have done." in page
    assert "success 75.0% (70." in page
    body = {"versions": [1], "log": "pointsman", "file": {"name": "t.jsonl", "text": task_log(workload, 400)}}
    answer = Caller()("POST", f"workloads/{workload.name}/backtest", body)
    drawn = answer.json()["policies"]["v1"]["drawn"]
    assert (drawn["tasks"], drawn["value"]["matched"], drawn["unsupported"]) == (400, 400, {})
    assert drawn["value"]["cost_per_success_usd"]["value"] == pytest.approx(1.333e-6, rel=0.01)
