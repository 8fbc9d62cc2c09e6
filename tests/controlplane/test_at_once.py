"""Concurrency: the chain neither forks nor has gaps, and a duplicated request is done once."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from controlplane.access import idempotency
from controlplane.access.models import Team
from controlplane.audit import checkpoints, log, verification
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.core.actors import SYSTEM

pytestmark = pytest.mark.django_db(transaction=True)
THREADS, EACH = 4, 10


@pytest.fixture(autouse=True)
def _own_directory(settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path


def at_once(work: Callable[[int], object]) -> list[BaseException]:
    """Run `work` in several threads that start together. Return the exceptions they raised."""
    start, errors = threading.Barrier(THREADS), list[BaseException]()

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_the_chain_has_no_forks_and_no_gaps() -> None:
    def work(number: int) -> None:
        for turn in range(EACH):
            with transaction.atomic():
                log.record(actor=SYSTEM, action="test", target=("thing", f"{number}/{turn}"))
                if turn % 3 == 2:
                    transaction.set_rollback(True)

    assert at_once(work) == []
    kept = THREADS * sum(turn % 3 != 2 for turn in range(EACH))
    assert list(Entry.objects.order_by("seq").values_list("seq", flat=True)) == list(range(1, kept + 1))
    assert list(Entry.objects.order_by("seq").values_list("at")) == list(
        Entry.objects.order_by("at", "seq").values_list("at")
    )
    assert verification.verify().findings == []
    assert Head.objects.count() == 1


def test_checkpoints_made_at_once_are_one() -> None:
    with transaction.atomic():
        log.record(actor=SYSTEM, action="test", target=("thing", "1"))
    assert at_once(lambda number: checkpoints.make()) == []
    assert Checkpoint.objects.count() == 1
    assert verification.verify().findings == []


def test_a_doubled_request_is_done_once_and_answered_twice() -> None:
    replies: list[idempotency.StoredReply] = []

    def create() -> idempotency.StoredReply:
        team = Team.objects.create(name=f"team-{Team.objects.count()}")
        return idempotency.StoredReply(201, {"name": team.name}, {})

    def work(number: int) -> None:
        replies.append(idempotency.answer_once(SYSTEM, "key", "0" * 64, create))

    assert at_once(work) == []
    assert Team.objects.count() == 1
    assert {(reply.status, reply.body["name"]) for reply in replies} == {(201, "team-0")}
    assert sorted(reply.repeated for reply in replies) == [False, True, True, True]
