"""Records writes that are refused before their action runs, by a role check or a selector, in the audit log."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from django.db import Error as DatabaseError
from prometheus_client import Counter

from controlplane.audit import log
from controlplane.core.actors import Actor
from controlplane.core.errors import Unauthenticated, WrongKeyKind

logger = logging.getLogger(__name__)
UNAUTHENTICATED = Counter(
    "pointsman_unauthenticated", "Requests to the admin API that failed authentication, by reason", ["code"]
)
SAFE = ("GET", "HEAD", "OPTIONS")


def keep(
    error: Exception,
    *,
    method: str,
    path: str,
    named: Mapping[str, Any],
    actor: Callable[[], Actor],
) -> None:
    """Record the refusal unless the action has done so. `named` holds the URL's parts: environment, workload.

    Without an environment in the URL, the entry belongs to the one whose role is missing.

    If the log cannot be written, the refusal stands: it must not become a 500.
    """
    if isinstance(error, Unauthenticated):
        UNAUTHENTICATED.labels(error.code).inc()
    if method in SAFE or not isinstance(error, log.REFUSALS):
        return
    try:
        if log.is_recorded(error):
            log.keep_refusal(error)
            return
        log.record_refusal(
            error,
            actor=(isinstance(error, WrongKeyKind) and error.caller) or actor(),
            action=f"request.{method.lower()}",
            target=("path", path[:200]),
            environment=str(named.get("environment") or error.extra.get("environment", ""))[:64],
            workload=str(named.get("workload", ""))[:120],
        )
    except Unauthenticated:
        return  # nobody to attribute the attempt to
    except DatabaseError:
        logger.exception("a refused %s of %s could not be recorded", method, path)
