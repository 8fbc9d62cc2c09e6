"""Reads JSON from outside, and refuses what would only fail later: in another parser, or in PostgreSQL.

RFC 8259 leaves open what a duplicate key means, so two readers may see two documents; NUL and lone surrogates
are legal JSON, and no text column takes them. Depth and nodes are counted before anything is built.
"""

import json
import math
import re
from typing import Any, NoReturn

import msgspec

from controlplane.core.errors import BodyTooLarge, DuplicateKey, MalformedBody
from pointsman.reporting.unique_names import DuplicateName, unique

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000

# Strings are skipped whole, so that a bracket within one does not count. Possessive, and with the closing
# quote optional, the scan never goes back: it is linear in whatever it is given.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{\]},]', re.DOTALL)


def loads(body: bytes, most: int = MAX_BYTES) -> Any:
    """The document, or `MalformedBody` / `BodyTooLarge` saying what is wrong with it."""
    if len(body) > most:
        raise BodyTooLarge(f"The body has {len(body):,} bytes; at most {most:,} are read.")
    _refuse_too_deep(body)
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=_refuse_constant,
            parse_float=_refuse_infinite,
        )
    except UnicodeDecodeError:
        raise MalformedBody("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except DuplicateName as error:
        raise DuplicateKey(str(error)) from None
    except ValueError:  # an integer of thousands of digits
        raise MalformedBody("The body has a number that is too long.") from None
    _refuse_bad_text(document)
    return document


def refuse_duplicate_keys(body: bytes) -> None:
    """Raise `DuplicateKey` for a document that has one. What is no JSON at all passes: its reader says so.

    For readers that keep the last of two and say nothing. A member that is lost takes its colon along, so a document
    that is read and written again has fewer. Escapes can hide a colon or a name: with them, every object is looked at.
    """
    try:
        if b"\\" not in body and msgspec.json.encode(msgspec.json.decode(body)).count(b":") == body.count(
            b":"
        ):
            return
        json.loads(body.decode("utf-8"), object_pairs_hook=unique)
    except DuplicateName as error:
        raise DuplicateKey(str(error)) from None
    except (ValueError, msgspec.DecodeError, RecursionError):
        return


def _refuse_too_deep(body: bytes) -> None:
    depth, nodes = 0, 1
    for match in _TOKEN.finditer(body):
        token = match[0]
        if token in b"[{":
            depth += 1
            nodes += 1
        elif token in b"]}":
            depth -= 1
        elif token == b",":
            nodes += 1
        if depth > MAX_DEPTH:
            raise MalformedBody(f"The body is nested more than {MAX_DEPTH} deep.")
        if nodes > MAX_NODES:
            raise MalformedBody(f"The body has more than {MAX_NODES:,} values.")


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not a JSON number.")


def _refuse_infinite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise MalformedBody(f"The number {text[:40]} is too large.")
    return value


def _refuse_bad_text(document: Any) -> None:
    left = [document]
    while left:
        match left.pop():
            case str() as text if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
                raise MalformedBody("The body has text with a NUL or half a surrogate pair in it.")
            case dict() as found:
                left += [*found, *found.values()]
            case list() as found:
                left += found
