"""`make demo`: four rollouts on recorded tasks, with the real server, real routers and the real engine."""

import logging
import signal
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from controlplane.access import first_admin
from controlplane.core.actors import Actor
from rollout_app import actions
from rollout_app.demo import instance
from rollout_app.demo.server import Server
from rollout_app.demo.stories import STORIES
from rollout_app.demo.telling import Teller
from rollout_app.demo.traffic import Traffic, has_ended, waits_for_a_person

Done = Callable[[Sequence[Traffic]], bool]
LINGER_S = 10  # seconds of traffic after the last end, so that the result can be seen being served


class Command(BaseCommand):
    help = "Replay recorded tasks through four rollouts and show what the engine decides."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--fresh", action="store_true", help="start from scratch instead of continuing an earlier run"
        )
        parser.add_argument("--approve", action="store_true", help="approve (d) as the administrator")
        parser.add_argument(
            "--exit",
            action="store_true",
            help="exit when the stories have ended instead of waiting for Ctrl-C",
        )
        parser.add_argument("--port", type=int, default=8000, help="default 8000; another one if it is taken")
        parser.add_argument(
            "--per-second", type=int, default=500, help="tasks per story and second; default 500"
        )
        parser.add_argument("--only", default="abcd", help="the stories to run, by letter; default abcd")

    def handle(self, *args: Any, **options: Any) -> None:
        _only_in_its_own_instance()
        signal.signal(signal.SIGTERM, _as_ctrl_c)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # otherwise logs every request of the routers
        if options["fresh"]:
            _begin_anew()
        call_command("migrate", verbosity=0)
        password = first_admin.make_first_admin()
        stories = [story for story in STORIES if story.letter in options["only"]]
        served = instance.set_up(stories)
        try:
            with Server(options["port"]) as server:
                self._introduce(server, password)
                keys = {name: instance.fresh_router_key(name) for name in {s.environment for s in stories}}
                traffic = [
                    Traffic(
                        story,
                        served[story.letter],
                        server.url,
                        keys[story.environment],
                        options["per_second"],
                    )
                    for story in stories
                ]
                self._watch(server, traffic, approve=options["approve"], leave=options["exit"])
        except KeyboardInterrupt:
            self.stdout.write(
                "\nStopped. `make demo` continues from here, `make demo DEMO=--fresh` starts from scratch."
            )

    def _introduce(self, server: Server, password: str | None) -> None:
        who = (
            f"{first_admin.NAME} / {password} (shown only once)"
            if password
            else f"{first_admin.NAME}, as before"
        )
        self.stdout.write(
            f"\nPointsman is at {server.url}/console/   log in as {who}\n"
            f"Four stories on recorded tasks; a second here is a minute there. Server log: {server.log}\n"
        )

    def _watch(self, server: Server, stories: Sequence[Traffic], *, approve: bool, leave: bool) -> None:
        teller = Teller(self.stdout, server.url, stories)
        try:
            for traffic in stories:
                traffic.start()
            self._until(teller, server, stories, _settled(approve), approve=approve)
            self._until(teller, server, stories, _after(LINGER_S), approve=approve)
            self._sum_up(teller)
            waiting = [t for t in stories if (r := t.rollout()) is not None and waits_for_a_person(r)]
            for traffic in waiting:
                self.stdout.write(
                    f"\n({traffic.story.letter}) waits for you: log in as {first_admin.NAME} and "
                    "approve its next stage on its page, or run `make demo DEMO=--approve`."
                )
            if not leave:
                self.stdout.write(
                    "The server and the traffic keep running. Press Ctrl-C to end everything.\n"
                )
                self._until(teller, server, stories, lambda _: False, approve=approve)
        finally:
            for traffic in stories:
                traffic.stop()
            for traffic in stories:
                traffic.join(5)
            for name in {traffic.story.environment for traffic in stories}:
                instance.forget_router_keys(name)

    def _until(
        self, teller: Teller, server: Server, stories: Sequence[Traffic], done: Done, *, approve: bool
    ) -> None:
        while not done(stories):
            if not server.is_up:
                raise CommandError(f"The server has ended; its log is {server.log}.")
            for traffic in stories:
                if traffic.error is not None:
                    raise CommandError(f"Story ({traffic.story.letter}) cannot continue: {traffic.error!r}")
                if approve:
                    _approve(traffic)
            teller.look()
            time.sleep(1)

    def _sum_up(self, teller: Teller) -> None:
        teller.summary()
        self.stdout.write("\naudit verify:")
        call_command("audit", "verify", stdout=self.stdout)


def _settled(approve: bool) -> Done:
    """Return a check that every story has ended or, unless the demo approves stages itself, waits for a person."""

    def settled(stories: Sequence[Traffic]) -> bool:
        found = [traffic.rollout() for traffic in stories]
        return all(has_ended(r) or (r is not None and waits_for_a_person(r) and not approve) for r in found)

    return settled


def _after(seconds: float) -> Done:
    end = time.monotonic() + seconds
    return lambda _: time.monotonic() >= end


def _approve(traffic: Traffic) -> None:
    """Approve the stage that requires it, as the administrator, who is neither author nor proposer."""
    rollout = traffic.rollout()
    if (
        rollout is None
        or not waits_for_a_person(rollout)
        or actions.standing_approval(rollout, rollout.stage + 1)
    ):
        return
    admin = Actor.of_user(User.objects.get(username=first_admin.NAME))
    actions.approve_stage(
        rollout,
        rollout.stage + 1,
        actor=admin,
        reason="The tasks that ran on both say that it is better and cheaper.",
        expected_binding=actions.binding(rollout, rollout.stage + 1),
    )


def _only_in_its_own_instance() -> None:
    own = settings.VAR_DIR / "pointsman.sqlite3"
    if settings.VAR_DIR.name != "demo" or str(settings.DATABASES["default"]["NAME"]) != str(own):
        raise CommandError(
            "The demo creates people, keys and rollouts, so it uses its own instance in var/demo: "
            "run `make demo`."
        )


def _begin_anew() -> None:
    """Delete the instance except for its secrets, which this process has already read."""
    connection.close()
    for path in settings.VAR_DIR.iterdir():
        if path.is_file() and not path.name.endswith("-key"):
            path.unlink()


def _as_ctrl_c(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
