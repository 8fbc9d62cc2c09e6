"""The readback: which routers have applied a change, and when none is awaited any longer."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.fleet.listening import Hearing
from policies_app.fleet.readback import Readback, read_fleet
from policies_app.models import Assignment, Environment, Listening, Router
from tests.support import builders

pytestmark = pytest.mark.django_db

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)  # when the change was made


def s(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def environment() -> Environment:
    environment = builders.environment()
    environment.revision = 7
    environment.save(update_fields=["revision"])
    return environment


def listened(*stretches: tuple[float, float]) -> None:
    for began, to in stretches:
        Listening.objects.create(began_at=s(began), until=s(to))


def heard(environment: Environment, instance: str, at: float, revision: int = 6, **fields: object) -> None:
    values = {
        "epoch": environment.epoch,
        "revision": revision,
        "first_polled_at": s(-3600),
        "polled_at": s(at),
    }
    Router.objects.update_or_create(environment=environment, instance=instance, defaults=values | fields)


def read(environment: Environment, at: float, **options: datetime) -> tuple[Readback, bool]:
    """Return the readback of revision 7, and whether it has ended, `at` seconds after the change."""
    fleet = read_fleet(environment, now=s(at), back_to=min([T0, *options.values()]))
    readback = fleet.readback(7, changed_at=T0, **options)
    return readback, fleet.has_followed(readback, T0)


def test_it_ends_when_every_router_has_applied_the_change(environment: Environment) -> None:
    listened((-3600, 60))
    heard(environment, "r-1", 4, revision=7)
    heard(environment, "r-2", 5)
    readback, ended = read(environment, 6)
    assert (readback.confirmed, readback.of, readback.stragglers, ended) == (1, 2, ["r-2"], False)
    heard(environment, "r-2", 6, revision=8)
    assert read(environment, 6)[1]


def test_it_waits_until_every_poll_before_the_change_is_on_record(environment: Environment) -> None:
    listened((-3600, 60))
    heard(environment, "r-1", 1, revision=7)
    assert not read(environment, 4)[1]
    assert read(environment, 5)[1]


def test_it_waits_after_an_outage_for_a_router_in_backoff(environment: Environment) -> None:
    """F1: the control plane returned 1 s before the change; it had last heard the router long before."""
    listened((-3600, -400), (-1, 500))
    heard(environment, "r-1", -401)
    for at in (6, 60, 118):
        readback, ended = read(environment, at, since=s(-1000))
        assert (readback.confirmed, readback.of, readback.stragglers, ended) == (0, 1, ["r-1"], False)
    readback, ended = read(environment, 120)
    assert (readback.confirmed, readback.of, readback.silent, ended) == (0, 1, ["r-1"], True)
    heard(environment, "r-1", 119, revision=7)
    readback, ended = read(environment, 120)
    assert (readback.confirmed, readback.of, readback.silent, ended) == (1, 1, [], True)


def test_it_does_not_report_an_empty_fleet_right_after_a_start(environment: Environment) -> None:
    listened((-1, 500))
    assert not read(environment, 118)[1]
    readback, ended = read(environment, 119)
    assert (readback.of, ended) == (0, True)


def test_it_does_not_end_while_no_gateway_listens(environment: Environment) -> None:
    readback, ended = read(environment, 4000)
    assert (readback.of, ended) == (0, False)
    listened((-3600, 10))
    heard(environment, "r-1", 3)
    readback, ended = read(environment, 4000)  # nobody was listening
    assert (readback.stragglers, readback.silent, ended) == (["r-1"], [], False)


def test_it_counts_each_process(environment: Environment) -> None:
    """F2: the children of a fork have their own names; one of them is stopped."""
    listened((-3600, 60))
    heard(environment, "gateway-1.a", 4, revision=7)
    heard(environment, "gateway-1.b", -3)
    readback, ended = read(environment, 30)
    assert (readback.confirmed, readback.of, readback.stragglers, ended) == (1, 2, ["gateway-1.b"], False)


def test_it_names_a_router_that_went_silent_during_the_rollback(environment: Environment) -> None:
    """F3: two of three routers followed, not two of two."""
    listened((-3600, 600))
    heard(environment, "r-1", 110, revision=7)
    heard(environment, "r-2", 110, revision=7)
    heard(environment, "r-3", -2)
    assert not read(environment, 117)[1]
    readback, ended = read(environment, 119)
    assert (readback.confirmed, readback.of, ended) == (2, 3, True)
    assert readback.stragglers == readback.silent == ["r-3"]


def test_it_excludes_jobs_that_have_ended(environment: Environment) -> None:
    """F4: each applied the previous change, polled, and sent `leaving`."""
    listened((-3600, 60))
    heard(environment, "r-1", 4, revision=7)
    for job in range(3):
        heard(environment, f"job-{job}", job, left_at=s(job))
    readback, ended = read(environment, 6)
    assert (readback.confirmed, readback.of, ended) == (1, 1, True)
    heard(environment, "job-0", 5, left_at=s(0))  # restarted under the same name
    assert read(environment, 6)[0].of == 2


@pytest.mark.parametrize(("age", "counts"), [(9, 1), (10, 0)])
def test_it_counts_a_router_that_never_applied_anything_for_ten_seconds(
    environment: Environment, age: float, counts: int
) -> None:
    listened((-3600, 60))
    heard(environment, "new", 30, revision=0, epoch="", first_polled_at=s(30 - age))
    assert read(environment, 30)[0].of == counts


def test_a_first_poll_in_the_future_holds_nothing_up(environment: Environment) -> None:
    """F10: the clock was a day ahead at the first poll of a router that never applies anything."""
    listened((-3600, 60))
    heard(environment, "new", 30, revision=0, epoch="", first_polled_at=s(86_400))
    readback, ended = read(environment, 30)
    assert (readback.of, readback.stragglers, ended) == (0, [], True)


def test_it_counts_a_router_that_left_under_a_clock_that_was_ahead_and_returned(
    environment: Environment,
) -> None:
    """Otherwise a rollback would end without it, for a day."""
    listened((-3600, 60))
    heard(environment, "r-1", 5, left_at=s(86_400))
    readback, ended = read(environment, 6)
    assert (readback.stragglers, ended) == (["r-1"], False)
    heard(environment, "r-1", 86_400, left_at=s(86_400))  # it did not return
    assert read(environment, 6)[0].of == 0


def test_it_names_routers_that_were_lost_before_the_change(environment: Environment) -> None:
    listened((-3600, 60))
    heard(environment, "r-1", 4, revision=7)
    heard(environment, "lost", -130)
    heard(environment, "long gone", -3000)
    heard(environment, "lost, and has it", -130, revision=7)
    readback, ended = read(environment, 6, since=s(-1000))
    assert (readback.of, readback.lost, ended) == (1, ["lost"], True)


def test_it_ignores_revisions_of_another_epoch(environment: Environment) -> None:
    listened((-3600, 60))
    heard(environment, "r-1", 4, revision=9, epoch="older")
    assert read(environment, 6)[0].confirmed == 0


def test_a_time_in_the_future_counts_as_the_last_break_in_the_listening(environment: Environment) -> None:
    """F10: a router was heard under a clock that was a day ahead, and never again."""
    listened((-3600, -60), (-30, 600))
    heard(environment, "r-1", 86_400)
    assert not read(environment, 89)[1]
    readback, ended = read(environment, 91)
    assert (readback.silent, ended) == (["r-1"], True)


def test_a_pin_has_its_own_readback() -> None:
    assignment = builders.served(builders.environment(), builders.workload())
    pinned = actions.pin(assignment, "large", actor=SYSTEM, reason="outage")
    other = builders.served(Environment.objects.get(pk=assignment.environment_id), builders.workload())
    assert (pinned.revision, other.revision) == (2, 3)
    pinned = Assignment.objects.get(pk=pinned.pk)
    environment = pinned.environment
    for instance, revision in (("r-1", 2), ("r-2", 1), ("r-3", 3)):
        Router.objects.create(
            environment=environment,
            instance=instance,
            epoch=environment.epoch,
            revision=revision,
            polled_at=pinned.changed_at,
        )
    readback = read_fleet(environment).readback(pinned.revision, changed_at=pinned.changed_at)
    assert (readback.confirmed, readback.of, readback.stragglers) == (2, 3, ["r-2"])


# --- silence and listening ------------------------------------------------------------------------------

TWO = timedelta(seconds=120)


@pytest.mark.parametrize(
    ("stretches", "at", "expected"),
    [
        ([], 0, None),
        ([(-119, 0)], 0, None),
        ([(-120, 0)], 0, -120),
        ([(-120, 0)], 600, -120),  # nobody listened after that, so later silence does not count
        ([(-500, 500)], 0, -120),
        ([(-500, -100), (-90, 0)], 0, -220),  # the break restarts the count
        ([(-500, -100), (-400, 10)], 0, -120),  # two gateways
    ],
)
def test_silence_counts_only_within_one_listening_period(
    stretches: list[tuple[float, float]], at: float, expected: float | None
) -> None:
    hearing = Hearing(tuple((s(began), s(to)) for began, to in stretches))
    assert hearing.heard_out(s(at), TWO) == (None if expected is None else s(expected))


@pytest.mark.parametrize(("at", "since"), [(-101, None), (-100, -100), (19, -100), (20, None)])
def test_it_returns_since_when_somebody_listens(at: float, since: float | None) -> None:
    hearing = Hearing(((s(-100), s(0)),))
    assert hearing.since(s(at)) == (None if since is None else s(since))
