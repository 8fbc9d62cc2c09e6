"""Notices to the other processes: one for each environment and commit, and none while Redis hangs."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from django.db import transaction

from controlplane.core import redis_or_memory
from controlplane.core.actors import SYSTEM
from controlplane.core.redis_or_memory import LeftAlone
from policies_app import actions
from policies_app.models import Model
from policies_app.snapshots import build, notices
from tests.support import builders

pytestmark = pytest.mark.django_db(transaction=True)


class Hung:
    """A Redis that takes each message and answers none."""

    def __init__(self) -> None:
        self.waited_for = 0

    def publish(self, channel: str, text: str) -> None:
        self.waited_for += 1
        raise redis.TimeoutError("Timeout reading from socket")


@pytest.fixture
def hung(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Hung:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    found = Hung()
    monkeypatch.setattr(notices, "_client", lambda: found)
    monkeypatch.setattr(notices, "_left_alone", LeftAlone(), raising=False)
    return found


@pytest.fixture
def published() -> Iterator[list[str]]:
    """The environments of which something was published, in order."""
    names: list[str] = []

    def note(environment: str, revision: int) -> None:
        names.append(environment)

    build.on_publish(note)
    yield names
    build.off_publish(note)


def test_a_change_in_many_environments_waits_for_a_hung_redis_once(hung: Hung) -> None:
    """The answer to a new price took half a second for each environment that serves the model."""
    workload = builders.workload()
    served = [builders.served(builders.environment(), workload) for _ in range(5)]
    hung.waited_for, notices._left_alone = 0, LeftAlone()
    actions.edit_model(Model.objects.get(name="openai/gpt-4o-mini"), actor=SYSTEM, input_nusd_per_mtok=7)
    for assignment in served:
        assignment.refresh_from_db()
    assert {assignment.revision for assignment in served} == {2}
    assert hung.waited_for == 1


def test_it_is_tried_again_later(hung: Hung, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_or_memory, "LEFT_ALONE_S", 0.0)
    for revision in (1, 2):
        notices.send("production", revision)
    assert hung.waited_for == 2


def test_a_transaction_publishes_each_environment_once(published: list[str]) -> None:
    here, there = (builders.served(builders.environment(), builders.workload()) for _ in range(2))
    published.clear()
    with transaction.atomic():
        with suppress(ZeroDivisionError), transaction.atomic():
            actions.pin(here, "large", actor=SYSTEM, reason="rolled back")
            raise ZeroDivisionError
        here.refresh_from_db()
        for alias in ("large", "small"):
            actions.pin(here, alias, actor=SYSTEM, reason="now")
        actions.pin(there, "large", actor=SYSTEM, reason="now")
    assert sorted(published) == sorted([here.environment.name, there.environment.name])
    actions.pin(here, "large", actor=SYSTEM, reason="later")
    assert published[2:] == [here.environment.name]
