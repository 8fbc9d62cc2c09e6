"""Ways to tamper with the database outside Pointsman, as somebody with its password could.

Each kind draws rows and values at random, changes them with plain SQL, and returns the names by which `audit verify`
may report the change. `tests/trust/test_tampering.py` tries a few of each, `benchmarks/tampering.py` thousands.
"""

import random
from dataclasses import dataclass

from django.db import DatabaseError, connection, transaction

from controlplane.audit import checkpoints, verification
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Assignment
from tests.support.tampering.draws import Change
from tests.support.tampering.instance import undone
from tests.support.tampering.of_checkpoints import OF_CHECKPOINTS
from tests.support.tampering.of_entries import OF_ENTRIES
from tests.support.tampering.of_people import OF_PEOPLE
from tests.support.tampering.of_rows import OF_ROWS

# These damage the log itself; writes must continue nevertheless.
OF_LOG: dict[str, Change] = OF_ENTRIES | OF_CHECKPOINTS
KINDS: dict[str, Change] = OF_LOG | OF_ROWS | OF_PEOPLE
DRAWS = 50  # attempts until a draw can be written, since some violate a unique key


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt; `found` and `named` are what `audit verify` must do."""

    kind: str
    found: bool
    named: bool
    went_on: bool  # an emergency write and a checkpoint succeeded, and the tampering was still found
    told: str


def tried(kind: str, rng: random.Random) -> Outcome:
    """Tamper, verify, write more if the log was damaged, verify again; then undo it."""
    with undone():
        names = _done(kind, rng)
        if names is None:
            return Outcome(
                kind, True, True, True, "the database refused every draw: a foreign key holds the row"
            )
        findings = [str(finding) for finding in verification.verify().findings]
        named = any(finding.startswith(f"{name}:") for finding in findings for name in names)
        went_on = _goes_on(kind) if kind in OF_LOG else True
    told = "; ".join(findings)[:400] + f" (one of {sorted(names)[:4]})"
    return Outcome(kind, bool(findings), named, went_on, told)


def _done(kind: str, rng: random.Random) -> set[str] | None:
    """Return the names of the changed things, or None if PostgreSQL's foreign keys prevent the deletion."""
    for _ in range(DRAWS):
        try:
            with transaction.atomic():
                return KINDS[kind](rng)
        except DatabaseError:
            continue
    if connection.vendor == "postgresql" and kind.endswith(": gone"):
        return None
    raise AssertionError(f"{kind}: no draw could be written")


def _goes_on(kind: str) -> bool:
    """Make a write and a checkpoint, and verify again. Notes that the file lost are written again."""
    assignment = Assignment.objects.order_by("pk")[0]
    actions.pin(
        actions.served_assignment(assignment.environment_id, assignment.workload_id),
        "small",
        actor=SYSTEM,
        reason="emergency",
    )
    made = checkpoints.make()
    return made is not None and (kind.startswith("file:") or bool(verification.verify().findings))
