"""A router in a separate process, to be killed: `router_process.py <url> <spool> <name>`.

Each task has its own endpoint and each feedback its own decision, so that one counted twice shows.
"""

import itertools
import sys
import time
from pathlib import Path

from pointsman import Pace, Router
from pointsman.reporting.spool import Spool


def main(url: str, spool: Path, name: str) -> None:
    """Record and give feedback until killed."""
    pace = Pace(first_poll_within=0, flush_every=0.05)
    router = Router(url, "pmr_test", spool=Spool(spool, orphaned_after_s=0.2), pace=pace)
    if not router.wait_ready(60):
        sys.exit(1)
    print("recording", flush=True)
    for number in itertools.count():
        decision = router.decide("summaries", {"endpoint": f"/{name}/{number}"})
        router.record(decision, success=True, cost_nusd=1_000)
        router.feedback(f"{name}/{number}", "human_review", success=True)
        time.sleep(0.002)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
