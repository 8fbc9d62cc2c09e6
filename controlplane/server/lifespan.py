"""Starts and stops everything that one process runs: the gateway in front, Django behind, and their threads."""

import asyncio
import gc
import os
import threading

import django

from controlplane.core.program import settings_refused

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
with settings_refused():
    django.setup(set_prefix=False)

from django.conf import settings  # noqa: E402 — needs the settings
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.urls import get_resolver  # noqa: E402
from prometheus_client import REGISTRY  # noqa: E402

from controlplane import celery  # noqa: E402
from controlplane.core import periodic, schedule  # noqa: E402
from controlplane.notifications.engine_watch import watch_engine  # noqa: E402
from controlplane.server import worker  # noqa: E402
from controlplane.server.bridge import Bridge  # noqa: E402
from controlplane.server.gateway import Gateway  # noqa: E402
from policies_app.snapshots import publish  # noqa: E402
from rollout_app import nudges, tasks  # noqa: E402

bridge = Bridge(WSGIHandler())
REGISTRY.register(bridge)
gateway = Gateway(bridge)


def _follow_nudges(stopping: threading.Event) -> None:
    nudges.run(tasks.evaluate, stopping)


def _forward_nudges(stopping: threading.Event) -> None:
    nudges.run(tasks.evaluate_later, stopping)


def _publish(stopping: threading.Event) -> None:
    job = schedule.job("policies_app.tasks.publish")
    publish.follow(lambda: periodic.run_once(job), stopping)


def _publish_later(stopping: threading.Event) -> None:
    publish.follow(lambda: celery.run_later("policies_app.tasks.publish"), stopping)


def _spare_the_garbage_collector() -> None:
    """Import every page's code now, and exclude all loaded objects from garbage collection.

    Otherwise each full collection would walk them, and no router would be answered for some 100 ms. Besides, a batch of
    outcomes is a thousand objects: at the default threshold the collector takes a third of ingest's time.
    """
    _ = get_resolver().url_patterns  # accessing it imports the views
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


class Lifespan:
    """The lifespan of a process: serve inside `async with Lifespan()`."""

    def __init__(self) -> None:
        if settings.EMBEDDED_RUNNER:
            self._runner = periodic.Runner(watch=[_follow_nudges, _publish, watch_engine])
        else:  # the workers run the jobs, and evaluate what is received here
            self._runner = periodic.Runner(table=(), watch=[_forward_nudges, _publish_later, watch_engine])
        self._companions: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        await gateway.start()
        self._runner.start()
        _spare_the_garbage_collector()
        if worker.is_worker():
            loop = asyncio.get_running_loop()
            worker.listen_to_parent(loop, gateway.drain)
            companions = (worker.end_with_parent(gateway.drain), worker.give_up_on_silent_clients())
            self._companions = [loop.create_task(companion) for companion in companions]

    async def __aexit__(self, *_: object) -> None:
        for task in self._companions:
            task.cancel()
        gateway.drain()
        await asyncio.to_thread(self._runner.stop)
        await gateway.stop()
        await asyncio.to_thread(bridge.close)
