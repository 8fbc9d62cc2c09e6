"""The plain values of the engine: equal by their fields, usable as keys, and copied with changes."""

import dataclasses
from typing import Any

import pytest

from rollout_app.engine.evidence import ArmSums, Group
from rollout_app.engine.values import replace

ARM = ArmSums(tasks=9, successes=7, failures=2, cost_over=(3, 2, 1), decided=10)


def test_it_replaces_fields_and_leaves_the_original() -> None:
    changed = replace(ARM, failures=1, decided=None)
    assert changed == dataclasses.replace(ARM, failures=1, decided=None)
    assert changed != ARM
    assert (ARM.failures, ARM.decided) == (2, 10)


def test_it_refuses_a_field_that_does_not_exist() -> None:
    changes: dict[str, Any] = {"surprise": 1}
    with pytest.raises(AttributeError):
        replace(ARM, **changes)


def test_equal_values_are_the_same_key() -> None:
    assert {Group(3, 1): "a"}[Group(3, 1)] == "a"
    assert len({Group(3, 1), Group(3, 1), Group(3, 2)}) == 2
