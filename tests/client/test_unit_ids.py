"""What is a unit's id, and what stands for none. Tasks without an id must not become one big unit."""

import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from pointsman.integrations.flags import units_of
from pointsman.testing import FakeControlPlane
from tests.client.policies import always, two_stage


class NotAvailable:
    """Like `pandas.NA`: a comparison gives it again, and it is neither true nor false."""

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


NOTHING: list[Any] = [
    "",
    " ",
    None,
    math.nan,
    Decimal("nan"),
    b"",
    b" ",
    [],
    {},
    (),
    ["u"],
    False,
    True,
    NotAvailable(),
]


@pytest.mark.parametrize("nothing", NOTHING)
def test_what_stands_for_no_id_is_missing_and_counted(nothing: Any) -> None:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage(), unit="user")
        plane.roll_out("summaries", always("large"), share_pcm=50_000)
        with plane.router() as router:
            units = {router.decide("summaries", {}, {"user": nothing}).unit for _ in range(20)}
            assert len(units) == 20, "each task is its own unit"
            assert router.status()["unit_missing"] == 20
            assert router.decide("summaries", {}, {"user": nothing, "request": "r-1"}).unit == "r-1"


@pytest.mark.parametrize("user", ["u-1", 7, 0, UUID(int=7), b"u"])
def test_integers_and_uuids_are_ids(user: Any) -> None:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage(), unit="user")
        with plane.router() as router:
            decision = router.decide("summaries", {}, {"user": user})
            assert (decision.unit, decision.unit_missing) == (str(user), False)
            assert router.status()["unit_missing"] == 0


@pytest.mark.parametrize("nothing", NOTHING)
def test_it_does_not_hide_the_targeting_key_of_a_feature_flag(nothing: Any) -> None:
    units = units_of("key", {"user": nothing, "tenant": "t-1"})
    assert units == {"request": "key", "conversation": "key", "user": "key", "tenant": "t-1"}
    assert units_of(" ", {"user": nothing, "tenant": 7}) == {"tenant": "7"}
