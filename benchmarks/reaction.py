"""The time from the commit of the deciding outcomes to the published revision without the candidate.

`python benchmarks/reaction.py [times]` runs the embedded runner's loop in a thread, with real actions and a new
rollout each time. The last minutes that make the harm certain are committed, and the clock runs until the new
revision is announced to the snapshot servers. Prints the median, p95, p99 and the maximum.
"""

import os
import sys
import tempfile
import threading
import time
from datetime import timedelta

os.environ["POINTSMAN_VAR"] = tempfile.mkdtemp(prefix="pointsman-reaction-")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))  # noqa: PTH100,PTH118,PTH120

import django  # noqa: E402

django.setup()

from django.db import connection  # noqa: E402

from controlplane.core import clock  # noqa: E402
from policies_app.snapshots import build  # noqa: E402
from rollout_app import nudges, tasks  # noqa: E402
from rollout_app.models import Rollout  # noqa: E402

PLAN = [{"mode": "percentage", "share_pcm": 20_000}, {"mode": "full"}]


def once(published: threading.Event) -> float:
    from tests.support import places
    from tests.support.traffic import Traffic

    rollout = places.started(plan=PLAN)
    traffic = Traffic(rollout, start=clock.now() - timedelta(hours=2))
    traffic.minutes(3)
    nudges.nudge([rollout.pk])
    while Rollout.objects.get(pk=rollout.pk).evaluated_at is None:
        time.sleep(0.01)
    traffic.minutes(3, candidate=0.0)
    published.clear()
    began = time.perf_counter()
    nudges.nudge([rollout.pk])
    if not published.wait(10):
        raise SystemExit("no rollback within 10 s")
    return time.perf_counter() - began


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    # A file, because the runner's thread has its own connection.
    connection.settings_dict["TEST"]["NAME"] = f"{os.environ['POINTSMAN_VAR']}/reaction.sqlite3"
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    published, stop = threading.Event(), threading.Event()
    build.on_publish(lambda environment, revision: published.set())
    runner = threading.Thread(target=nudges.run, args=(tasks.evaluate, stop), daemon=True)
    runner.start()
    took = sorted(once(published) for _ in range(times))
    stop.set()
    runner.join()
    at = {
        name: took[min(int(q * times), times - 1)] for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    print(f"{times} rollbacks on {connection.vendor}: ", end="")
    print(
        ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in at.items()),
        f"worst {took[-1] * 1000:.0f} ms",
    )


if __name__ == "__main__":
    main()
