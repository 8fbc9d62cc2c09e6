"""Parse JSON from outside, rejecting what would only fail later, in another parser or in PostgreSQL.

RFC 8259 does not define the meaning of duplicate keys, so two readers may see two documents. NUL and lone surrogates
are legal JSON, but PostgreSQL text columns reject them. Depth and node count are checked before anything is built.
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

# Skip whole strings, so that brackets within one do not count. The possessive quantifier and the optional closing
# quote prevent backtracking: the scan is linear for any input.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{\]},]', re.DOTALL)


def loads(body: bytes, most: int = MAX_BYTES) -> Any:
    """Parse the document. Raises `MalformedBody`, `DuplicateKey` or `BodyTooLarge`."""
    if len(body) > most:
        raise BodyTooLarge(f"The body has {len(body):,} bytes; the limit is {most:,}.")
    refuse_too_deep(body)
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
        raise MalformedBody("The body contains a number with too many digits.") from None
    _refuse_bad_text(document)
    return document


def refuse_duplicate_keys(body: bytes) -> None:
    """Raise `DuplicateKey` for a document with a duplicate key. Invalid JSON passes: its reader reports it.

    For readers that silently keep the last of two values. A lost member loses its colon too, so a document that is
    decoded and encoded again has fewer colons. Escapes can hide a colon or a name, so a document with escapes is parsed
    in full.
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


def refuse_too_deep(body: bytes) -> None:
    """Raise `MalformedBody` for a document that is nested too deeply or has too many values."""
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
            raise MalformedBody(f"The body is nested more than {MAX_DEPTH} levels deep.")
        if nodes > MAX_NODES:
            raise MalformedBody(f"The body contains more than {MAX_NODES:,} values.")


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
                raise MalformedBody("The body contains text with a NUL or a lone surrogate.")
            case dict() as found:
                left += [*found, *found.values()]
            case list() as found:
                left += found


_KINDS = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "an object", "null": "null", "datetime": "a time such as 2026-11-01T12:00:00Z",
}  # fmt: skip


def in_words(error: Exception) -> str:
    """Return msgspec's message with the names of its types in words: "Expected text, got a whole number"."""
    return re.sub(r"`([a-z]+(?: \| [a-z]+)*)`", _kinds, str(error))


def _kinds(found: re.Match[str]) -> str:
    kinds = found[1].split(" | ")
    return " or ".join(_KINDS[kind] for kind in kinds) if all(kind in _KINDS for kind in kinds) else found[0]
