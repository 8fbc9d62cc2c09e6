"""An absolute bound in the form of a guardrail's margin."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import InvalidInput
from policies_app.models import Environment, Workload
from rollout_app.actions import set_guardrail
from rollout_app.engine.metrics import Metric
from rollout_app.models import GuardrailOverride, Rollout
from tests.support.filled_in import filled_in
from tests.support.pages import text
from tests.support.people import People, actor_of, running
from tests.support.traffic import Traffic

STANDARD = {"enabled": "on", "margin": "2", "weight": "0.3"}


@pytest.fixture
def maria(people: People, summaries: Workload) -> Client:
    return people("maria", "editor", team=summaries.owner)


def form_of(metric: str = "failure") -> str:
    return reverse("console:edit_margin", args=["summaries", metric])


def save(client: Client, metric: str = "failure", **given: Any) -> Any:
    return client.post(form_of(metric), {**STANDARD, **given})


def test_a_bound_alone_leaves_the_margin_standard(maria: Client, summaries: Workload) -> None:
    assert save(maria, bound="5").status_code == 302
    kept = GuardrailOverride.objects.get()
    assert (kept.metric, kept.margin) == ("failure", None) and kept.bound == pytest.approx(0.05)
    page = text(maria.get(form_of()))
    assert "Never more than (percent of tasks)" in page and 'value="5"' in page
    listed = text(maria.get(reverse("console:margins", args=["summaries"])))
    assert "Failures (absolute)" in listed and "5.0\u202f%" in listed


def test_a_cost_is_bounded_in_dollars(maria: Client) -> None:
    assert save(maria, "cost_per_success", margin="10", weight="0.2", bound="0.0125").status_code == 302
    assert GuardrailOverride.objects.get().bound == pytest.approx(12_500_000)
    assert 'value="0.0125"' in text(maria.get(form_of("cost_per_success")))


def test_quality_is_bounded_from_below(maria: Client) -> None:
    assert "Never below (percent of the full score)" in text(maria.get(form_of("quality")))


def test_changing_a_bound_requires_a_reason_and_keeps_the_input(maria: Client) -> None:
    save(maria, bound="5")
    refused = save(maria, margin="1", bound="8")
    assert refused.status_code == 422 and "This change needs a reason." in text(refused)
    assert 'value="8"' in text(refused)
    # Neither was saved.
    assert list(GuardrailOverride.objects.values_list("bound", flat=True)) == [pytest.approx(0.05)]


def test_an_emptied_bound_is_removed_and_the_margin_stays(maria: Client) -> None:
    save(maria, margin="1", bound="5")
    assert GuardrailOverride.objects.count() == 2
    assert save(maria, margin="1", bound="", reason="the bar is enough").status_code == 302
    kept = GuardrailOverride.objects.get()
    assert kept.bound is None and kept.margin == pytest.approx(0.01)
    assert Entry.objects.filter(action="guardrail.remove").count() == 1


@pytest.mark.parametrize("bound", ["0", "100", "-3", "NaN", "much"])
def test_a_bad_bound_is_refused_next_to_its_field(maria: Client, bound: str) -> None:
    refused = save(maria, bound=bound)
    assert refused.status_code == 422 and not GuardrailOverride.objects.exists()
    assert (
        maria.post(
            reverse("console:rehearse_margin", args=["summaries", "failure"]), {**STANDARD, "bound": bound}
        ).status_code
        == 200
    )


def test_the_dry_run_uses_the_bound(maria: Client, summaries: Workload, production: Environment) -> None:
    traffic = Traffic(running(summaries, production), start=clock.now() - timedelta(hours=10))
    traffic.minutes(60, tasks=400, candidate=0.99)
    address = reverse("console:rehearse_margin", args=["summaries", "failure"])
    page = text(maria.post(address, {**STANDARD, "bound": "5"}))
    assert "failures at most 5.0" in page
    save(maria, bound="5")
    assert "at most 5.0" not in text(maria.post(address, {**STANDARD, "bound": ""}))


def test_a_rollout_that_cannot_be_judged_is_not_called_good(
    maria: Client, summaries: Workload, production: Environment
) -> None:
    """Regression: it had the green badge "would not roll back"."""
    rollout = running(summaries, production)
    address = reverse("console:rehearse_margin", args=["summaries", "failure"])
    page = text(maria.post(address, STANDARD))
    assert "There is nothing to judge" in page and "would not roll back" not in page
    Traffic(rollout, start=clock.now() - timedelta(hours=10)).minutes(60, tasks=400, candidate=0.99)
    assert "would not roll back" in text(maria.post(address, STANDARD))
    Rollout.objects.filter(pk=rollout.pk).update(guardrails=[{"metric": "vibes"}])
    page = text(maria.post(address, STANDARD))
    assert "cannot be judged" in page and "would not roll back" not in page


def test_only_changed_values_of_a_guardrail_are_stored(maria: Client, summaries: Workload) -> None:
    """The form rounds: 0.029 is shown as 2.9, and a new bound gets the weight that is shown with it."""
    set_guardrail(summaries, "failure", actor=SYSTEM, reason="ours", margin=1 / 35, weight=1 / 7)
    assert save(maria, margin="2.8571", weight="0.1429", bound="5", reason="x").status_code == 302
    rows = GuardrailOverride.objects.order_by("pk").values_list("margin", "weight", "bound")
    assert list(rows) == [(1 / 35, 1 / 7, None), (None, 1 / 7, 0.05)]


def test_a_guardrail_that_is_not_judged_is_shown_so_and_can_be_switched_on(maria: Client) -> None:
    unused = next(metric.value for metric in Metric if not metric.spec.weight)
    form = filled_in(maria.get(form_of(unused)), having="margin")
    assert "enabled" not in form
    assert maria.post(form_of(unused), {**form, "enabled": "on", "reason": "new"}).status_code == 302
    assert GuardrailOverride.objects.get().enabled


def test_going_back_to_a_looser_standard_needs_a_reason(maria: Client, summaries: Workload) -> None:
    set_guardrail(summaries, "failure", actor=SYSTEM, margin=0.01)
    with pytest.raises(InvalidInput, match="weakens"):
        set_guardrail(summaries, "failure", actor=actor_of("maria"))
