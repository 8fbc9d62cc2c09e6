"""System checks: reject at startup what cannot work. Run by `manage.py check [--deploy]`.

E001  the signing key cannot be read          E005  PostgreSQL is older than 14
E002  the instance's directory is read-only   E007  the poll interval is out of range
E003  the SQLite file cannot be written       E008  SNAPSHOT_BUCKET is set, its packages are missing
E004  SQLite is older than 3.35               E009  TRUSTED_PROXIES or METRICS_ADDRESSES has an invalid address
E010  WEBHOOK_ALLOWED has an entry that no webhook can match
E011  SECRET_KEY is empty or a placeholder    E012  ALLOWED_HOSTS has an entry that no host name can match
E014  DEFAULT_FROM_EMAIL is not an address    E013  another setting is not the URL that it has to be
E020  OIDC_ISSUER is set without a client, or is not a URL
W001  an append-only trigger is missing       W002  people log in over plain HTTP (--deploy)
W003  SECRET_KEY is short
"""

import os
import sqlite3
from collections.abc import Sequence
from email.utils import parseaddr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.http.request import split_domain_port

from controlplane.audit import triggers
from controlplane.core import signing
from controlplane.core.environment import url_parts
from controlplane.notifications import destinations
from controlplane.server import proxies
from pointsman.plurals import counted

PLACEHOLDERS = ("change-me", "changeme")  # the first in deploy/*/pointsman.env.example
SHORTEST_SECRET = 32  # characters
OLDEST_SQLITE = (3, 35)  # RETURNING
OLDEST_POSTGRESQL = 140_000


@register()
def check_signing_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    try:
        signing.key_id()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="`openssl rand -base64 32` generates one.", id="pointsman.E001")]
    except OSError as error:
        return [_read_only(str(error))]
    return []


@register()
def check_directory(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [] if os.access(settings.VAR_DIR, os.W_OK) else [_read_only(str(settings.VAR_DIR))]


def _read_only(what: str) -> CheckMessage:
    return Error(
        f"The instance's directory is not writable: {what}",
        hint="Set POINTSMAN_VAR to a directory that belongs to the process.",
        id="pointsman.E002",
    )


@register()
def check_secret_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    key = settings.SECRET_KEY.strip()
    hint = 'python -c "import secrets; print(secrets.token_urlsafe(50))" generates one.'
    if not key or key.lower() in PLACEHOLDERS:
        what = "the placeholder of an example" if key else "empty"
        return [
            Error(f"SECRET_KEY is {what}: anybody could sign in as anybody.", hint=hint, id="pointsman.E011")
        ]
    if len(key) < SHORTEST_SECRET:
        return [
            Warning(
                f"SECRET_KEY has {counted(len(key), 'character')}: below {SHORTEST_SECRET} it can be guessed.",
                hint=f"{hint} Put the old one into SECRET_KEY_FALLBACKS.",
                id="pointsman.W003",
            )
        ]
    return []


@register()
def check_hosts(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"ALLOWED_HOSTS: {text[:80]!r} is not the name of a host.",
            hint="Use names such as pointsman.example.org or .example.org, without https://, a port or a path.",
            id="pointsman.E012",
        )
        for text in settings.ALLOWED_HOSTS
        if text != "*" and split_domain_port(name := text.lower().removeprefix(".")) != (name, "")
    ]


@register()
def check_sqlite(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    database = settings.DATABASES["default"]
    if not database["ENGINE"].endswith("sqlite3"):
        return []
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return [
            Error(
                f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed.", id="pointsman.E004"
            )
        ]
    path = Path(database["NAME"])
    # SQLite creates its journal beside the file.
    places = [] if str(path) == ":memory:" else [path.parent, path] if path.exists() else [path.parent]
    if path.is_dir() or not all(os.access(place, os.W_OK) for place in places):
        return [
            Error(
                f"DATABASE_URL: the SQLite file {path} cannot be written.",
                hint="It needs a directory that exists and belongs to the process: sqlite:////absolute/path.sqlite3.",
                id="pointsman.E003",
            )
        ]
    return []


@register()
def check_urls(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    given = {
        "PUBLIC_URL": [settings.PUBLIC_URL],
        "AWS_S3_ENDPOINT_URL": [settings.AWS_S3_ENDPOINT_URL],
        "OIDC_FORMER_ISSUERS": settings.OIDC_FORMER_ISSUERS,
    }
    return [
        Error(
            f"{name}: {url[:80]!r} is not a URL.",
            hint="Use https://host, with a port or a path if needed.",
            id="pointsman.E013",
        )
        for name, urls in given.items()
        for url in urls
        if url and not _is_web_address(url)
    ]


def _is_web_address(url: str) -> bool:
    parts = url_parts(url)
    return parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)


@register()
def check_sender(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    name, at, host = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")
    if name and host:
        return []
    return [
        Error(
            f"DEFAULT_FROM_EMAIL: {settings.DEFAULT_FROM_EMAIL[:80]!r} is not an e-mail address.",
            hint="Use pointsman@example.org or Pointsman <pointsman@example.org>.",
            id="pointsman.E014",
        )
    ]


@register()
def check_poll_interval(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not 200 <= settings.POLL_INTERVAL_MS <= 300_000:
        return [
            Error(
                f"POINTSMAN_POLL_INTERVAL_MS is {settings.POLL_INTERVAL_MS}; it must be between 200 and 300,000.",
                id="pointsman.E007",
            )
        ]
    return []


@register()
def check_addresses(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in ("TRUSTED_PROXIES", "METRICS_ADDRESSES"):
        try:
            proxies.networks(tuple(getattr(settings, name)))
        except ValueError as error:
            hint = "Use addresses and networks such as 10.0.0.0/8, separated by commas."
            found.append(Error(f"{name}: {error}.", hint=hint, id="pointsman.E009"))
    return found


@register()
def check_webhooks(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"WEBHOOK_ALLOWED: {text[:80]!r} is neither the name of a host nor a network.",
            hint="Use names and networks such as hooks.internal,10.1.0.0/16, without https:// and without a port.",
            id="pointsman.E010",
        )
        for text in settings.WEBHOOK_ALLOWED
        if not destinations.can_be_allowed(text)
    ]


@register()
def check_bucket(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.SNAPSHOT_BUCKET or all(find_spec(name) for name in ("storages", "boto3")):
        return []
    return [
        Error(
            "SNAPSHOT_BUCKET is set, but django-storages and boto3 are not installed.",
            hint="pip install --require-hashes -r requirements/s3.txt",
            id="pointsman.E008",
        )
    ]


@register()
def check_identity_provider(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    issuer = settings.OIDC_ISSUER
    secure = issuer.startswith(("https://", "http://localhost")) and _is_web_address(issuer)
    if not issuer or (secure and settings.OIDC_CLIENT_ID):
        return []
    return [
        Error(
            "OIDC_ISSUER must be an https:// URL, and needs OIDC_CLIENT_ID.",
            hint="docs/how-to/sign-in-with-your-company.md",
            id="pointsman.E020",
        )
    ]


@register(Tags.database)
def check_database(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check that the database enforces the append-only tables. Runs only with `--database` and before a migration."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor == "postgresql" and connection.pg_version < OLDEST_POSTGRESQL:  # type: ignore[attr-defined]
            found.append(Error("PostgreSQL is too old; 14 or newer is needed.", id="pointsman.E005"))
        # Only a warning, so that the migration that adds the triggers can still run.
        if missing := triggers.missing(connection):
            found.append(
                Warning(
                    f"Append-only tables are not protected: the triggers {', '.join(missing)} are missing.",
                    hint="Run `manage.py migrate`; a migration that alters a table ends with AppendOnly.",
                    id="pointsman.W001",
                )
            )
    return found


@register(Tags.security, deploy=True)
def check_https(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if settings.HTTPS:
        return []
    return [
        Warning(
            "People log in, and keys are sent, over plain HTTP.",
            hint="Put TLS in front and set HTTPS=on, which enables secure cookies, HSTS and the redirect.",
            id="pointsman.W002",
        )
    ]
