"""Refuses names that an operation of /api/v1 does not know, so that a typing error never answers 200 unnoticed.

Only the admin API does this. Routers may be newer or older than the control plane, so the router protocol ignores
unknown members.
"""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any

from django.http import QueryDict
from rest_framework import serializers

from controlplane.core.errors import InvalidInput, UnknownMember, UnknownParameter

LISTED = 20  # at most this many unknown names are reported
BOOLEANS = {"true": True, "false": False}


def refuse_unknown_members(serializer: Any, body: Any) -> None:
    """Raise `UnknownMember` with the path of each member of `body` that the serializer does not read."""
    found = [problem for _, problem in zip(range(LISTED), _problems(serializer, body, ""), strict=False)]
    if found:
        told = "; ".join(f"`{one['path']}`: {one['message']}" for one in found[:3])
        raise UnknownMember(f"The body has members that cannot be used. {told}", problems=found)


def _problems(field: Any, value: Any, path: str) -> Iterator[dict[str, str]]:
    child = getattr(field, "child", None)  # of a list
    if child is not None and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(child, item, f"{path}{index}/")
    elif isinstance(field, serializers.Serializer) and isinstance(value, dict):
        known = [name for name, one in field.fields.items() if not one.read_only]
        for name, item in value.items():
            if name in known:
                yield from _problems(field.fields[name], item, f"{path}{name}/")
            elif name in field.fields:
                yield {"path": f"{path}{name}", "message": "It cannot be set here; leave it out."}
            else:
                yield {
                    "path": f"{path}{name}",
                    "message": f"There is no such member.{suggestion(name, known)}",
                }


def refuse_unknown_parameters(query: QueryDict, known: Collection[str]) -> None:
    """Raise `UnknownParameter` for a query parameter that is not in `known`, or that is given twice."""
    for name, values in query.lists():
        if name not in known:
            raise UnknownParameter(
                f"There is no query parameter {name[:80]!r} here.{suggestion(name, known)}"
                + (f" The parameters are {', '.join(sorted(known))}." if known else " It takes none.")
            )
        if len(values) > 1:
            raise UnknownParameter(
                f"The query parameter {name!r} is given {len(values)} times; give it once."
            )


def suggestion(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name[:80], known, n=1, cutoff=0.7)
    return f" Did you mean `{close[0]}`?" if close else ""


def boolean(query: QueryDict, name: str) -> bool:
    """Return a query parameter that is `true` or `false`; false if it is missing."""
    text = query.get(name, "false")
    if text not in BOOLEANS:
        raise InvalidInput(f"{name} must be true or false, not {text[:40]!r}.")
    return BOOLEANS[text]
