"""Concurrent writes: each is done or refused with a message, and none deadlocks."""

import threading
from collections.abc import Callable

import pytest
from django.db import connection

from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Assignment, Revision, Workload
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
