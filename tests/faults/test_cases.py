"""Cases found in earlier runs, each with the correct result."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.faults.administrator import Administrator
from tests.support.plane import PATIENCE_S, Server

LIMIT_MIB = 500  # per worker: two simultaneous hashes take 100 MiB each


def _sign_in(url: str) -> int:
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        client.get("/console/login/")
        form = {"username": "nobody", "password": "wrong"}
        form["csrfmiddlewaretoken"] = client.cookies.get("csrftoken") or ""
        return client.post("/console/login/", data=form).status_code


def _peak_mib(pid: int) -> int:
    """Return the peak memory of its largest child."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return max(
        int(found[1]) // 1024
        for child in children
        if (found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text()))
    )


def test_it_is_alive_while_sign_ins_wait_for_the_write_lock(transactional_db: None) -> None:
    """F16: `/healthz` took 10.9 s, and the process used 880 MiB."""
    with Administrator() as administrator, Server() as server, ThreadPoolExecutor(10) as pool:
        with administrator.lock():
            answers = [pool.submit(_sign_in, server.url) for _ in range(10)]
            for _ in range(5):
                assert httpx.get(f"{server.url}/healthz", timeout=PATIENCE_S).status_code == 200
        statuses = {answer.result(2 * PATIENCE_S) for answer in answers}
        assert statuses <= {200, 429, 503}
        assert _peak_mib(server.process.pid) < LIMIT_MIB
