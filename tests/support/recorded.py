"""Recorded results in a file, and their differences from the present ones."""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(as_json(data), separators=(",", ":"), ensure_ascii=False) + "\n")


def as_json(data: Any) -> Any:
    """Return the data as stored: nine digits, infinities as text, and only the figures of sentences."""
    return json.loads(json.dumps(_rounded(data)))


def _rounded(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _rounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_rounded(value) for value in data]
    if isinstance(data, float):
        return float(f"{data:.9g}") if math.isfinite(data) else str(data)
    if isinstance(data, str) and data.count(" ") > 2:
        return figures_in(data)
    return data


def figures_in(sentence: str) -> str:
    return " ".join(["…", *re.findall(r"[-+]?\d[\d.,]*|None|unknown|%|points", sentence)])


def differences(kept: Any, now: Any, at: str = "", rel: float = 1e-7) -> Iterator[str]:
    """Yield where the two differ: a path and both values. Floats may differ by the relative amount `rel`."""
    if isinstance(kept, dict) and isinstance(now, dict):
        for key in {**kept, **now}:
            yield from differences(kept.get(key, "nothing"), now.get(key, "nothing"), f"{at}/{key}", rel)
    elif isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        for place, (one, other) in enumerate(zip(kept, now, strict=True)):
            yield from differences(one, other, f"{at}/{place}", rel)
    elif not _same(kept, now, rel):
        yield f"{at}: {kept} → {now}"


def _same(kept: Any, now: Any, rel: float) -> bool:
    if type(kept) in (int, float) and type(now) in (int, float):
        return math.isclose(kept, now, rel_tol=rel, abs_tol=1e-9)
    return type(kept) is type(now) and bool(kept == now)


def each(function: Callable[..., Any], *arguments: tuple[Any, ...]) -> list[Any]:
    return [function(*given) for given in arguments]
