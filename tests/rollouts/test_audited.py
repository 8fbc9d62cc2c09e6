"""What `audit verify` compares of a rollout: every column that people decide on."""

import json

import pytest

from controlplane.audit.models import Entry
from rollout_app import actions
from rollout_app.audited import PROPOSED
from rollout_app.models import Rollout
from tests.support import places
from tests.support.places import BEN

# The columns that a proposal does not fix. The first three lines are compared with other entries.
OTHERS = {
    "id", "environment", "workload", "reason", "reverts",  # from the rollout's first entry
    "contributors",  # from the actors of its proposal and amendments
    "state", "stage", "version",  # from its moves
    "created_at", "started_at", "stage_entered_at", "paused_at", "paused_s", "rolling_back_at", "ended_at",  # times
    "hold_code", "hold_sentence", "outlook", "evaluated_at", "wake_at", "evaluations",  # shown, never decided on
    "rollback_reason", "rollback_revision", "readback",  # of the way back
    "reference", "evidence",  # measured; `recompute_verdicts.py` computes them again
}  # fmt: skip


def test_every_column_is_compared_with_the_log_or_known_not_to_be() -> None:
    """A new column that people decide on belongs in `PROPOSED` and in `proposals.outline`."""
    columns = {field.name for field in Rollout._meta.concrete_fields}
    assert columns - OTHERS == set(PROPOSED.values())
    assert columns >= OTHERS


@pytest.mark.django_db
def test_the_entries_of_a_proposal_have_every_compared_column() -> None:
    rollout = places.proposed()
    actions.amend_rollout(rollout, plan="immediate", actor=BEN, reason="at once")
    proposed, amended = (
        json.loads(bytes(Entry.objects.get(action=f"rollout.{name}").body))["evidence"]
        for name in ("propose", "amend")
    )
    assert set(PROPOSED) <= set(proposed)
    assert set(PROPOSED) <= set(amended) | {"candidate", "salt"}  # no amendment changes these
