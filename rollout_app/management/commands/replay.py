"""`manage.py replay`: rehearse a plan with recorded tasks.

The tasks go through real routers and the real HTTP API of this instance, much faster than real time, with harm
injected at a given time.

    manage.py replay tasks.csv --environment staging --workload support --candidate 13 \\
        --plan standard --times 60 --harm success:-5 --at 0.4

The file can be anything that `manage.py backtest` reads: a table (CSV, JSON lines, Parquet; `--mapping` maps its
columns) or a gateway's log. A task is played if success and cost of every model that the policies may choose are
known; others are left out and counted. `gsm8k`, `mmlu` and `routerarena` are included sets.
"""

import argparse
import logging
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.access.actions import issue_key, revoke_key
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import PointsmanError
from pointsman import Router
from pointsman.plurals import counted
from pointsman.visible import one_line, visible
from policies_app.actions import served_assignment
from policies_app.catalogue.usage import dollars_per_million
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app import actions
from rollout_app.backtest.sources import add_arguments, source_of
from rollout_app.backtest.tasks import Task
from rollout_app.engine.states import ENDED, State
from rollout_app.models import Plan, Rollout
from rollout_app.rehearsal import scenario
from rollout_app.rehearsal.replay import Replay, Stamps

_OPERATOR = Actor("system", "replay", "manage.py replay")
_READBACK_S = 20  # routers follow within a poll, and the engine evaluates every two seconds


class Command(BaseCommand):
    help = "Rehearse a rollout plan on recorded tasks, with real routers and this instance's HTTP API."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tasks", help="a file of recorded tasks, or gsm8k, mmlu, routerarena")
        add_arguments(parser)
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="this instance's server")
        parser.add_argument("--environment", required=True, help="an environment that no real router uses")
        parser.add_argument("--workload", required=True)
        parser.add_argument("--candidate", type=int, required=True, help="the version's number")
        parser.add_argument("--plan", default="standard")
        parser.add_argument("--times", type=float, default=60, help="how many times faster than real time")
        parser.add_argument("--per-minute", type=int, default=300, help="tasks a minute")
        parser.add_argument("--hours", type=float, default=12, help="maximum hours of traffic")
        parser.add_argument("--harm", type=_harm, help="success:-5 (points) or cost:+25 (per cent)")
        parser.add_argument(
            "--at", type=float, default=0.0, help="the share of the tasks after which the harm begins, 0 … 1"
        )
        parser.add_argument("--routers", type=int, default=2)
        parser.add_argument("--seed", type=int, default=1)

    def handle(self, **options: Any) -> None:
        try:
            self._rehearse(options)
        except PointsmanError as error:
            raise CommandError(error.detail) from None
        except (OSError, ValueError) as error:
            raise CommandError(str(error)) from None

    def _rehearse(self, options: dict[str, Any]) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # otherwise logs every request of the routers
        _check(options)
        rollout, playable = _proposed(options, scenario.tasks_of(source_of(options, dollars_per_million())))
        try:
            self._play(options, rollout, playable)
        except BaseException:  # also an interrupt, and a server that gives the routers no snapshot
            _abort(rollout)
            raise

    def _play(self, options: dict[str, Any], rollout: Rollout, playable: scenario.Playable) -> None:
        if left_out := playable.sentence():
            self.stdout.write(one_line(left_out))
        minutes = round(options["hours"] * 60)
        total = minutes * options["per_minute"]
        chance = random.Random(options["seed"])  # noqa: S311 — a rehearsal is to be repeated, not secret
        after = round(options["at"] * total / options["routers"])
        stamps = Stamps((time.time() - minutes * 60) // 60 * 60)
        if options["harm"]:
            self.stdout.write(scenario.announced(options["harm"], options["at"] * minutes))
        with _routers(options, stamps) as routers:
            replay = Replay(
                [
                    scenario.harmed(router, options["harm"], after, options["seed"] + at)
                    for at, router in enumerate(routers)
                ],
                options["workload"],
                lambda: chance.choice(playable.tasks),
                stamps,
                per_minute=options["per_minute"],
                pace_s=60 / options["times"],
            )
            try:
                lasted = self._watch(rollout, replay, minutes, stamps)
                self.stdout.write(
                    "\n".join(scenario.afterwards(rollout, options["harm"], options["at"] * minutes, lasted))
                )
            finally:
                self._leave(rollout)

    def _watch(self, rollout: Rollout, replay: Replay, minutes: int, stamps: Stamps) -> float:
        """Watch until the rollout or the traffic has ended. Return the minutes of traffic."""
        said, began = None, stamps()
        for _ in range(minutes):
            replay.minute()
            rollout.refresh_from_db()
            if (phase := scenario.phase(rollout)) != said:
                said = phase
                self.stdout.write(
                    one_line(f"{(stamps() - began) / 60:6.0f} min  {scenario.progress(rollout)}")
                )
            if State(rollout.state) in ENDED | {State.ROLLING_BACK}:
                break
        else:
            self.stdout.write(
                f"The traffic has ended after {counted(minutes / 60, 'hour')}; --hours sets a longer time."
            )
        _read_back(rollout)
        self.stdout.write(visible(scenario.summary(rollout)))
        return (stamps() - began) / 60

    def _leave(self, rollout: Rollout) -> None:
        """Abort a rehearsal that was cut short, and wait for its routers to follow.

        Otherwise the rollout would go on by itself, and the next rehearsal would wait for routers that are gone.
        """
        _abort(rollout)
        _read_back(rollout)


def _abort(rollout: Rollout) -> None:
    """Abort it, unless it has ended or is on its way back."""
    rollout.refresh_from_db()
    if State(rollout.state) not in ENDED | {State.ROLLING_BACK}:
        with suppress(PointsmanError):
            actions.abort_rollout(rollout.pk, actor=_OPERATOR, reason="The rehearsal is over.")


def _read_back(rollout: Rollout) -> None:
    """Wait for a limited time until its routers have confirmed a rollback."""
    until = time.monotonic() + _READBACK_S
    while time.monotonic() < until:
        rollout.refresh_from_db()
        if rollout.state != State.ROLLING_BACK:
            return
        time.sleep(0.2)


def _check(options: dict[str, Any]) -> None:
    for name, low, high in (("times", 0.01, 10_000), ("per_minute", 1, 1_000_000), ("hours", 0.01, 10_000)):
        if not low <= options[name] <= high:
            raise CommandError(
                f"--{name.replace('_', '-')} must be from {low:g} to {high:g}, not {options[name]:g}."
            )
    if not 0 <= options["at"] < 1:
        raise CommandError(f"--at must be a share of the tasks, from 0 to below 1, not {options['at']:g}.")
    if not 1 <= options["routers"] <= 50:
        raise CommandError(f"--routers must be from 1 to 50, not {options['routers']}.")


def _proposed(options: dict[str, Any], tasks: Iterator[Task]) -> tuple[Rollout, scenario.Playable]:
    environment = Environment.objects.filter(name=options["environment"]).first()
    if environment is None:
        raise CommandError(f"There is no environment called {options['environment']!r}.")
    workload = Workload.objects.filter(name=options["workload"]).first()
    if workload is None:
        raise CommandError(f"There is no workload called {options['workload']!r}.")
    candidate = PolicyVersion.objects.filter(workload=workload, number=options["candidate"]).first()
    if candidate is None:
        raise CommandError(f"{workload.name} has no version {options['candidate']}.")
    if environment.four_eyes:
        raise CommandError(
            f"{environment.name} requires four eyes; rehearse in an environment without real traffic."
        )
    saved = Plan.objects.filter(name=options["plan"]).first()
    if saved is None:
        raise CommandError(f"There is no plan called {options['plan']!r}.")
    baseline = served_assignment(environment.pk, workload.pk).baseline
    playable = scenario.playable(tasks, [baseline.document, candidate.document])
    rollout = actions.propose_rollout(
        environment,
        workload,
        candidate,
        plan=scenario.hurried(saved.stages, options["times"]),
        reason=f"A rehearsal of the plan {saved.name}.",
        actor=_OPERATOR,
    )
    try:
        return actions.start_rollout(rollout, actor=_OPERATOR, reason="A rehearsal."), playable
    except PointsmanError as error:
        actions.cancel_rollout(
            rollout.pk, actor=_OPERATOR, reason=f"The rehearsal can't start: {error.detail}"
        )
        raise


@contextmanager
def _routers(options: dict[str, Any], stamps: Stamps) -> Iterator[list[Router]]:
    key, secret = issue_key("router", options["environment"], "rehearsal", actor=SYSTEM)
    with tempfile.TemporaryDirectory() as home:
        routers = [
            Router(
                options["url"],
                secret,
                store=f"{home}/{at}",
                instance=f"rehearsal-{at + 1}",
                clock=stamps,
                pace=scenario.PACE,
            )
            for at in range(options["routers"])
        ]
        try:
            if not all(router.wait_ready(20) for router in routers):
                raise CommandError(f"No snapshot from {options['url']}: is the server running (make run)?")
            yield routers
        finally:
            for router in routers:
                router.close()
            revoke_key(key.key_id, actor=SYSTEM, reason="The rehearsal is over.")


def _harm(text: str) -> tuple[str, float]:
    try:
        return scenario.parse_harm(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
