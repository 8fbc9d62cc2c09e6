"""Read settings from the environment. A value that makes no sense is refused with the setting's name.

django-environ by itself reads `HTTPS=enabled` as off, a number with a typing error as a traceback without a name, and
`METRICS_KEY=$ecret` as no key, because no variable is called `ecret`. A guard that is silently off is the worst of
these.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

DATABASES = ("django.db.backends.sqlite3", "django.db.backends.postgresql")
_NOTSET = environ.Env.NOTSET
_TRUE = frozenset(("true", "on", "ok", "yes", "y", "t"))
_FALSE = frozenset(("false", "off", "no", "n", "f"))
_int = int  # the class has a method of this name


class Environment(environ.FileAwareEnv):  # type: ignore[misc]
    """`NAME`, or the content of the file in `NAME_FILE`. An empty value means the default; an empty list is a list.

    Raises `ImproperlyConfigured`, and never shows the value of text or of an address: it may be a secret.
    """

    def get_value(
        self, var: str, cast: Any = None, default: Any = _NOTSET, parse_default: bool = False
    ) -> Any:
        text = self._text(var)
        if text is None or (not text and cast is not list):
            if default is _NOTSET:
                raise ImproperlyConfigured(f"Set {var}.")
            return default
        if cast is bool:
            return _flag(var, text)
        if cast is int:
            return _whole(var, text)
        return [part.strip() for part in text.split(",") if part.strip()] if cast is list else text

    def int(self, var: str, default: Any = _NOTSET, *, least: _int = 0, most: _int = 2**31 - 1) -> _int:
        number: _int = self.get_value(var, cast=_int, default=default)
        if not least <= number <= most:
            raise ImproperlyConfigured(f"{var} is {number}; it must be from {least:,} to {most:,}.")
        return number

    def word(self, var: str, words: Collection[str], *, default: str) -> str:
        """Return one of `words`, in whichever case it is set."""
        found: str = self.get_value(var, default=default)
        for word in words:
            if found.lower() == word.lower():
                return word
        raise ImproperlyConfigured(f"{var} is {found[:40]!r}: use {' or '.join(words)}.")

    def db(self, var: str = "DATABASE_URL", default: Any = _NOTSET, engine: Any = None) -> dict[str, Any]:
        url = self.get_value(var, default=default)
        try:
            # Without a known scheme, django-environ would print a warning with the password, and return nothing.
            scheme, colon, rest = url.partition("://")
            known = colon and scheme in self.DB_SCHEMES
            # `sqlite://x.sqlite3` would be a database in memory: what follows two slashes is a host.
            known = known and not (scheme == "sqlite" and rest and not rest.startswith(("/", ":memory:")))
            found: dict[str, Any] = self.db_url_config(url, engine=engine) if known else {}
        except ValueError:
            found = {}
        wrong = ""
        if not found:
            wrong = "is not the address of a database"
        elif found["ENGINE"] not in DATABASES:
            wrong = f"begins with {scheme}://, and only SQLite and PostgreSQL are supported"
        elif not found["NAME"] and "service" not in found.get("OPTIONS", {}):
            wrong = "does not name a database"
        if wrong:
            raise ImproperlyConfigured(
                f"{var} {wrong}: use sqlite:///path or postgres://user:password@host/name, "
                "with a / in the password as %2F."
            )
        return found

    def email(self, var: str = "EMAIL_URL", default: Any = _NOTSET, backend: Any = None) -> dict[str, Any]:
        """Return Django's settings for mail; none if the value is empty."""
        url = self.get_value(var, default=default)
        try:
            found: dict[str, Any] = self.email_url_config(url, backend=backend) if url else {}
            parts = urlsplit(url)
            # With a / in the password, the part before it was read as the host and the port.
            wrong = parts.scheme.startswith("smtp") and (
                not parts.hostname or url.count("@") != parts.netloc.count("@")
            )
        except (ValueError, ImproperlyConfigured):
            wrong = True
        if wrong:
            raise ImproperlyConfigured(
                f"{var} is not the address of a mail server: use smtp+tls://user:password@host:587, with a / in the "
                "password as %2F."
            )
        return found

    def redis(self, var: str) -> str:
        """Return an address that redis-py and Celery can use, or ""."""
        url: str = self.get_value(var, default="")
        if url and not _is_redis(url):
            raise ImproperlyConfigured(
                f"{var} is not a Redis URL: use redis://host:6379/0 or unix:///path?db=0, with a / in the password "
                "as %2F."
            )
        return url

    def _text(self, var: str) -> str | None:
        """Return the value, or None if it is not set."""
        try:
            text: str = self.ENVIRON[var]
        except KeyError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ImproperlyConfigured(f"The file that {var}_FILE names cannot be read: {error}.") from None
        if text.startswith("$"):
            return self._of_another(var, text)
        # A file ends with a line break. It has always been part of SECRET_KEY, and what was encrypted with the key
        # could no longer be read without it.
        return text if var.startswith("SECRET_KEY") else text.strip()

    def _of_another(self, var: str, text: str) -> str:
        """Return the value of the variable named in `text`: django-environ's `NAME=$OTHER`."""
        other = text.strip().lstrip("$")
        found = self._text(other) if other and other != var else None
        if found is None:
            raise ImproperlyConfigured(
                f"{var} begins with $, which stands for the value of another variable, and there is none of that "
                "name. Choose a value that begins with another character."
            )
        return found


def url_parts(url: str) -> SplitResult | None:
    """Return the parts of a URL, or None if it has no such parts, for example a port that is not a number."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _is_redis(url: str) -> bool:
    """Return whether both libraries can use it: redis-py ignores a database that is not a number, and Celery's workers
    end with a traceback."""
    parts = url_parts(url)
    if parts is None or parts.scheme == "unix":
        return parts is not None and bool(parts.path)
    database = parts.path.removeprefix("/") or "0"
    return parts.scheme in ("redis", "rediss") and bool(parts.hostname) and database.isdecimal()


def broker(redis_url: str) -> str | None:
    """Return the address of the Celery broker. Celery has its own words for a socket file and a database on it."""
    if redis_url.startswith("unix://"):
        return redis_url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)
    return redis_url or None


def read_file(path: Path) -> None:
    """Read `NAME=value` lines into the environment, if the file exists. Variables that are set already win."""
    environ.Env.read_env(path)


def _flag(var: str, text: str) -> bool:
    word = text.lower()
    if word.isdecimal():
        return int(word) != 0
    if word not in _TRUE | _FALSE:
        raise ImproperlyConfigured(f"{var} is {text[:40]!r}: use on or off.")
    return word in _TRUE


def _whole(var: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ImproperlyConfigured(f"{var} is {text[:40]!r}: it must be a whole number.") from None
