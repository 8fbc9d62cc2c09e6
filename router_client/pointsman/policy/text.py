"""Parse text into a `Document`: JSON or YAML, at most 64 KiB, with all problems in the text itself."""

from __future__ import annotations

import re
from typing import Any, Literal

from pointsman.errors import PolicyInvalid
from pointsman.policy.document import MAX_BYTES, Document, Source
from pointsman.policy.json_text import TextError, read_json
from pointsman.policy.yaml_text import read_yaml
from pointsman.problems import Problem

__all__ = ["parse", "read"]

_UNSAFE = re.compile("[\0\ud800-\udfff]")


def parse(text: str | bytes, *, syntax: Literal["json", "yaml"] | None = None) -> Document:
    """Parse a document. Without `syntax`, text that begins with `{` is JSON, and all other text is YAML.

    Raises `PolicyInvalid` for text that cannot be parsed: syntax, size, duplicate names, NUL, unpaired surrogates,
    NaN. The result may still be an invalid policy: use `validate`.
    """
    data, source = read(text, syntax=syntax)
    if not isinstance(data, dict):
        message = "a policy document must be an object with `format`, `workload`, `models`, …"
        source.problem(0, "wrong_type", message)
        raise PolicyInvalid(source.problems)
    return Document(data, source)


def read(
    text: str | bytes, *, syntax: Literal["json", "yaml"] | None = None, most_bytes: int = MAX_BYTES
) -> tuple[Any, Source]:
    """Return the data in a text of any shape, None for an empty one, and its positions. Raises as `parse` does."""
    source = Source(_decoded(text, most_bytes))
    try:
        if match := _UNSAFE.search(source.text):
            raise TextError(match.start(), "bad_character", "NUL and unpaired surrogates are not allowed")
        json = syntax == "json" or (syntax is None and source.text.lstrip().startswith("{"))
        data = read_json(source) if json else read_yaml(source)
    except TextError as error:
        source.problem(error.at, error.code, str(error))
        raise PolicyInvalid(source.problems) from None
    if source.problems:
        raise PolicyInvalid(source.problems)
    return data, source


def _decoded(text: str | bytes, most_bytes: int) -> str:
    size = len(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    if size > most_bytes:
        message = f"a document may have at most {most_bytes // 1024:,} KiB; this one has {size:,} bytes"
        raise PolicyInvalid([Problem("", "too_large", message, "error", 1, 1)])
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyInvalid(
            [Problem("", "not_utf8", f"byte {error.start} is not valid UTF-8", "error", 1, 1)]
        ) from None
