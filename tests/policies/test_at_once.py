"""Concurrent writes: each is done or refused with a message, and none deadlocks."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from django.db import connection, transaction

from controlplane.core.actors import SYSTEM
from controlplane.core.errors import StaleVersion
from policies_app import actions
from policies_app.catalogue import imports
from policies_app.catalogue.imports import Change
from policies_app.models import Assignment, Model, Revision, Workload
from tests.support import builders

pytestmark = pytest.mark.django_db(transaction=True)
TURNS = 40


def at_once(*works: Callable[[int], object]) -> list[BaseException]:
    """Run each work `TURNS` times in its own thread, all together. Return the exceptions they raised."""
    start, errors = threading.Barrier(len(works)), list[BaseException]()

    def run(work: Callable[[int], object]) -> None:
        try:
            start.wait()
            for turn in range(TURNS):
                work(turn)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_edits_of_a_workload_and_pins_of_it_never_deadlock() -> None:
    """F23: foreign keys were checked at the commit, while the head of the audit log was locked."""
    assignment = builders.served(builders.environment(), builders.workload())
    elsewhere = builders.served(builders.environment(), assignment.workload, rules=[])
    workload = Workload.objects.get(pk=assignment.workload_id)

    def edit(turn: int) -> None:
        actions.edit_workload(workload, actor=SYSTEM, description=f"{turn}")

    def edit_unit(turn: int) -> None:
        actions.edit_workload(workload, actor=SYSTEM, unit=["user", "request"][turn % 2])

    def pin(served: Assignment) -> Callable[[int], object]:
        return lambda turn: actions.pin(served, "large", actor=SYSTEM, reason=f"{turn}")

    assert at_once(edit, edit_unit, pin(assignment), pin(elsewhere)) == []
    assert Workload.objects.get(pk=workload.pk).version == 1 + 2 * TURNS
    for served in (assignment, elsewhere):
        numbers = Revision.objects.filter(environment=served.environment).values_list("number", flat=True)
        assert list(numbers.order_by("number")) == list(range(1, 2 * TURNS + 2))


def test_a_price_edit_reaches_an_assignment_that_is_being_written() -> None:
    """On PostgreSQL the assignment read the old price, and the edit did not see the assignment."""
    environment, first = builders.environment(), builders.version(builders.workload())
    model = Model.objects.get(name="openai/gpt-4o-mini")
    errors = list[BaseException]()

    def edit() -> None:
        try:
            actions.edit_model(model, actor=SYSTEM, input_nusd_per_mtok=7)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    editing = threading.Thread(target=edit)
    with transaction.atomic():
        served = actions.serve_first(environment, first, actor=SYSTEM, reason="to begin with")
        editing.start()
        editing.join(1)
    editing.join()
    served.refresh_from_db()
    assert (errors, json.loads(served.prices)[model.name]["input"]) == ([], 7)
    assert served.revision == 2


def test_price_edits_and_assignments_never_deadlock() -> None:
    served = builders.served(builders.environment(), builders.workload())
    builders.served(builders.environment(), builders.workload())
    small, large = Model.objects.order_by("-name")

    def edit(model: Model) -> Callable[[int], object]:
        return lambda turn: actions.edit_model(
            model, actor=SYSTEM, input_nusd_per_mtok=turn, context_window=9_000 + turn
        )

    def pin(turn: int) -> None:
        actions.pin(served, "large", actor=SYSTEM, reason=f"{turn}")

    def importing(turn: int) -> None:
        one, two = Model.objects.order_by("-name")
        row = Change(one.name, one, {"context_window": 50_000 + turn}, {}, [])
        other = Change(two.name, two, {"output_nusd_per_mtok": turn}, {}, [])
        with suppress(StaleVersion):
            imports.apply("CSV x.csv", [row, other], actor=SYSTEM, reason=f"{turn}")

    assert at_once(edit(small), edit(large), pin, importing) == []
