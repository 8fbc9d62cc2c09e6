"""Write a version, view one, compare two."""

import re
from typing import Any

import pytest
from django.urls import reverse

from controlplane.audit.models import Entry
from policies_app.documents.yaml_text import as_yaml
from policies_app.models import Workload
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People

NEW = "/console/workloads/summaries/versions/new/"
CHECK = "/console/workloads/summaries/versions/check/"


@pytest.fixture
def draft(summaries: Workload) -> str:
    """The text of the newest version with one threshold changed."""
    newest = summaries.versions.first()
    assert newest is not None
    return re.sub(r"prompt_tokens > \d+", "prompt_tokens > 7000", as_yaml(newest.document))


@pytest.mark.parametrize("roles", [["viewer"], ["approver", "operator"], ["editor"]])
def test_it_requires_an_editor_of_the_owning_team(
    people: People, summaries: Workload, draft: str, roles: list[str]
) -> None:
    response = people("tom", *roles).post(NEW, {"text": draft})
    assert response.status_code == 403
    assert summaries.owner.name in text(response)
    assert summaries.versions.count() == 2


def test_it_saves_a_version_with_its_note_and_author(people: People, summaries: Workload, draft: str) -> None:
    client = people("maria", "editor", team=summaries.owner)
    response = client.post(NEW, {"text": draft, "note": "later"}, follow=True)
    version = summaries.versions.get(number=3)
    assert (version.note, version.author_label) == ("later", "maria")
    assert response.redirect_chain[0][0] == reverse("console:version", args=["summaries", 3]) + "?saved"
    assert "Version 3 is saved" in text(response)
    assert Entry.objects.filter(action="version.add", target_id="summaries/3").count() == 1


@pytest.mark.parametrize("newest", ["9" * 5_000, "-1", "1.5", "x", "٣" * 5_000])
def test_an_odd_number_of_the_newest_version_is_no_failure(
    people: People, summaries: Workload, draft: str, newest: str
) -> None:
    client = people("maria", "editor", team=summaries.owner)
    assert client.post(NEW, {"text": draft, "newest": newest}).status_code in (302, 422)


def test_a_condition_of_calls_within_calls_is_a_problem(
    people: People, summaries: Workload, draft: str
) -> None:
    wrong = re.sub(r"when: request.prompt_tokens > \d+", "when: '" + "has(" * 499 + "'", draft)
    client = people("maria", "editor", team=summaries.owner)
    assert client.post(NEW, {"text": wrong}).status_code == 422
    assert "nested more than 16 levels" in text(client.post(CHECK, {"text": wrong}))


def test_it_shows_problems_at_their_line_and_saves_nothing(
    people: People, summaries: Workload, draft: str
) -> None:
    wrong = draft.replace("default: small", "default: smal")
    line = 1 + wrong[: wrong.index("default: smal")].count("\n")
    response = people("maria", "editor", team=summaries.owner).post(NEW, {"text": wrong})
    page = text(response)
    assert response.status_code == 422
    assert f">{line}:10<" in page
    assert "did you mean &quot;small&quot;?" in page
    assert "default: smal " in page  # the input is still there
    assert summaries.versions.count() == 2


def test_it_shows_where_a_text_cannot_be_parsed(people: People, summaries: Workload) -> None:
    response = people("maria", "editor", team=summaries.owner).post(NEW, {"text": "format: [1"})
    assert response.status_code == 422
    assert "1 error<" in text(response) and "Nothing was saved" in text(response)


def test_it_names_the_version_that_has_the_same_content(people: People, summaries: Workload) -> None:
    same = as_yaml(summaries.versions.get(number=1).document)
    response = people("maria", "editor", team=summaries.owner).post(NEW, {"text": same})
    assert response.status_code == 422
    assert "Version 1 of summaries has exactly this content" in text(response)


def test_a_check_saves_nothing(people: People, summaries: Workload, draft: str) -> None:
    client = people("maria", "editor", team=summaries.owner)
    assert "No problem found" in text(client.post(CHECK, {"text": draft}))
    assert "did you mean" in text(client.post(CHECK, {"text": draft.replace("use: large", "use: lrge")}))
    assert summaries.versions.count() == 2


def test_the_editor_starts_with_the_requested_version(people: People, summaries: Workload) -> None:
    client = people("maria", "editor", team=summaries.owner)
    first = as_yaml(summaries.versions.get(number=1).document)
    form = client.get(NEW, {"from": "1"}).context["form"]
    assert form.initial["text"] == first


def test_the_page_shows_the_document_and_its_digest(people: People, summaries: Workload) -> None:
    version = summaries.versions.get(number=2)
    page = text(people("tom", "viewer").get(reverse("console:version", args=["summaries", 2])))
    assert version.digest in page
    assert "rules:" in page


@pytest.mark.parametrize("number", [3, 99_999_999])
def test_an_unknown_version_is_not_found(people: People, summaries: Workload, number: int) -> None:
    response = people("tom", "viewer").get(reverse("console:version", args=["summaries", number]))
    assert response.status_code == 404


def test_a_diff_names_rules_by_id(people: People, summaries: Workload) -> None:
    client = people("tom", "viewer")
    page = text(client.get(reverse("console:diff", args=["summaries"]), {"before": 1, "after": 2}))
    assert "rules[heavy].when" in page
    assert "1 difference." in page
    assert "<mark>" in page


@pytest.mark.parametrize("query", [{}, {"before": "1"}, {"before": "1", "after": "x"}, {"before": "-1"}])
def test_a_diff_of_unknown_versions_is_not_found(
    people: People, summaries: Workload, query: dict[str, Any]
) -> None:
    address = reverse("console:diff", args=["summaries"])
    assert people("tom", "viewer").get(address, query).status_code == 404


# --- the editor's check ---------------------------------------------------------------------------------


def test_the_check_returns_lines_for_the_gutter_and_saves_nothing(
    people: People, summaries: Workload, draft: str
) -> None:
    wrong = draft.replace("default: small", "default: smal")
    client = people("maria", "editor", team=summaries.owner)
    page = text(client.post(CHECK, {"text": wrong}, headers={"HX-Request": "true"}))
    line = 1 + wrong[: wrong.index("default: smal")].count("\n")
    assert f'data-line="{line}" data-column="10" data-severity="error"' in page
    assert "<html" not in page
    assert summaries.versions.count() == 2


def test_the_check_shows_the_differences_from_the_served_version(
    people: People, summaries: Workload, draft: str
) -> None:
    client = people("maria", "editor", team=summaries.owner)
    page = text(client.post(CHECK, {"text": draft}, headers={"HX-Request": "true"}))
    assert "No problem found" in page and "Compared with version 1" in page
    assert "pm-was" in page and "7000" in page


def test_it_names_the_author_of_a_concurrent_version_and_saves_the_next_time(
    people: People, summaries: Workload, draft: str
) -> None:
    client = people("maria", "editor", team=summaries.owner)
    response = client.post(NEW, {"text": draft, "newest": "1"})
    page = text(response)
    assert response.status_code == 409
    assert "saved version 2 in the meantime" in page and 'name="newest" value="2"' in page
    assert "prompt_tokens &gt; 7000" in page
    assert summaries.versions.count() == 2
    assert client.post(NEW, {"text": draft, "newest": "2"}).status_code == 302


def test_the_editor_completes_models_inputs_and_keywords(people: People, summaries: Workload) -> None:
    response = people("maria", "editor", team=summaries.owner).get(NEW)
    words = response.context["words"]
    assert "openai/gpt-4o-mini" in words["model"]
    assert {"request.prompt_tokens", "response.confidence", "history.tasks"} <= set(words["input"])
    assert {"escalate", "fallback", "rules"} <= set(words["key"])


def test_only_errors_prevent_saving(people: People, summaries: Workload, draft: str) -> None:
    client = people("maria", "editor", team=summaries.owner)
    draft = draft.replace("models:\n", "models:\n  spare: {model: openai/gpt-4o-mini}\n")  # never used
    checked = text(client.post(CHECK, {"text": draft}))
    assert "<h2>1 warning</h2><p>It can be saved.</p>" in checked
    wrong = draft.replace("default: small", "default: smal")
    assert "<h2>1 error, 1 warning</h2><p>Nothing was saved.</p>" in text(client.post(CHECK, {"text": wrong}))


def test_the_first_version_is_to_be_served_and_later_ones_need_a_rollout(
    people: People, summaries: Workload, draft: str
) -> None:
    client = people("ada", "admin")
    saved = client.post(NEW, {"text": draft}, follow=True)
    assert "Version 3 is saved. A rollout puts it on traffic." in text(saved)
    new = builders.workload("letters")
    address = reverse("console:new_version", args=["letters"])
    saved = client.post(address, {"text": draft.replace("summaries", new.name)}, follow=True)
    assert "Version 1 is saved. Serve it in an environment." in text(saved)
    assert reverse("console:serve", args=["letters", "production"]) in text(saved)


def test_the_message_about_a_missing_fallback_says_what_it_needs(
    people: People, summaries: Workload, draft: str
) -> None:
    client = people("maria", "editor", team=summaries.owner)
    checked = text(client.post(CHECK, {"text": draft.replace("fallback", "fallbak")}))
    assert "is required: the models to try, in order" in checked and "fallback: [large]" in checked
