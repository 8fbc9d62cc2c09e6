"""Template filters that format values for people: `{% load display %}`. Not for machines.

Money is in nano-US-dollars, shares in pcm (per 100,000), rates are fractions.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import yaml
from django import template
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from pointsman.plurals import plural_of

register = template.Library()

NONE = "–"
MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"
# (seconds, unit), largest first
_UNITS = ((86_400, "day"), (3_600, "h"), (60, "min"), (1, "s"))

# The tone of a state, verdict or outcome: good, bad, warn, live, quiet.
_TONES = {
    "running": "live", "completed": "good", "rolling_back": "bad", "rolled_back": "bad", "aborted": "bad",
    "rejected": "bad", "paused": "warn", "awaiting_approval": "warn", "scheduled": "live",
    "pass": "good", "fail": "bad", "inconclusive": "warn", "no_data": "quiet",
    "done": "quiet", "refused": "bad", "error": "bad", "warning": "warn", "amber": "warn",
    "added": "good", "removed": "bad", "changed": "live", "moved": "warn",
}  # fmt: skip


@register.filter
def money(nusd: float | None) -> str:
    """Format nano-US-dollars as dollars: two decimals from one dollar up, three significant figures below."""
    if nusd is None:
        return NONE
    dollars = Decimal(nusd) / 10**9
    if dollars == 0 or abs(dollars) >= Decimal("0.9995"):
        return _signed(f"${abs(dollars):,.2f}", dollars)
    places = 2 - dollars.adjusted()
    return _signed(f"${abs(dollars):.{places}f}", dollars)


@register.filter
def percent(fraction: float | None, places: int = 1) -> str:
    """Format a fraction as a percentage: 0.943 → 94.3 %. Only all of them are 100 %: 0.9996 → 99.96 %"""
    if fraction is None:
        return NONE
    if abs(fraction) > _MOST:
        return _signed(f"over 1,000{THIN}%", fraction)
    places = next((more for more in range(places, _MOST_PLACES + 1) if not _hides(fraction, more)), places)
    return _signed(f"{abs(fraction) * 100:.{places}f}{THIN}%", round(fraction, places + 2))


_MOST = 10.0  # 1,000 %: a larger figure says nothing more
_MOST_PLACES = 3


def _hides(fraction: float, places: int) -> bool:
    """Return whether so few places make a part look like none or all."""
    shown = round(abs(fraction), places + 2)
    return shown in (0, 1) and abs(abs(fraction) - shown) > 1e-9  # less is the error of adding floats


_OVER = "over "


@register.filter
def share(pcm: int | None) -> str:
    """Format a share per 100,000 as a percentage without trailing zeros: 5000 → 5 %"""
    return NONE if pcm is None else f"{pcm / 1000:g}{THIN}%"


@register.filter
def count(number: float | None) -> str:
    return NONE if number is None else f"{number:,.0f}"


@register.filter
def words(code: Any) -> str:
    """Format a code for people: awaiting_approval → awaiting approval"""
    return str(code).replace("_", " ")


@register.filter
def breakable(path: str) -> SafeString:
    """Allow a line break after each slash of `production/summaries`."""
    return format_html_join(format_html("{}<wbr>", "/"), "{}", ((part,) for part in path.split("/")))


@register.filter
def span(seconds: float | timedelta | None) -> str:
    """Format a duration with its two largest units: 4 min 20 s"""
    if seconds is None:
        return NONE
    left = int(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    parts = []
    for size, word in _UNITS:
        if left >= size:
            parts.append(f"{left // size}{THIN}{_plural(word, left // size)}")
            left %= size
    return " ".join(parts[:2]) or f"0{THIN}s"


@register.filter
def ago(at: datetime | None) -> str:
    """Format a time relative to now, with the exact time as a tooltip."""
    if at is None:
        return NONE
    seconds = (timezone.now() - at).total_seconds()
    size, word = next(((s, w) for s, w in _UNITS if abs(seconds) >= s), (1, "s"))
    number = int(abs(seconds) // size)
    text = f"{number}{THIN}{_plural(word, number)}"
    text = "just now" if abs(seconds) < 2 else f"in {text}" if seconds < 0 else f"{text} ago"
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{}</time>',
        at.isoformat(),
        f"{at:%Y-%m-%d %H:%M:%S} UTC",
        text,
    )


@register.filter
def stamp(at: datetime | None) -> str:
    """Format a time in UTC; the console's script shows it in the reader's time zone, with UTC as a tooltip."""
    if at is None:
        return NONE
    utc = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time datetime="{}" title="{}" data-local>{}</time>', at.isoformat(), utc, utc)


@register.filter
def badge(code: Any, tone: str = "") -> SafeString:
    """Render a state or verdict as a small coloured label. The text carries the meaning; the colour only helps."""
    tone = tone or _TONES.get(str(code), "quiet")
    return format_html('<span class="pm-badge pm-{}">{}</span>', tone, words(code))


@register.filter
def tone(code: Any) -> str:
    return _TONES.get(str(code), "quiet")


@register.filter
def points(difference: float) -> str:
    """Format a difference of two fractions: -0.021 → −2.1 points"""
    return signed(f"{abs(difference) * 100:.1f}{THIN}points", round(difference, 3))


def p_value(p: float) -> str:
    """Format a p-value. It is never exactly 0, although the figure may be too small to store."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def signed(text: str, value: float) -> str:
    """Put the sign directly before the figure: `over +1,000 %`. A figure that is shown as 0 has none."""
    figure = text.removeprefix(_OVER)
    sign = "" if value == 0 or not _NOT_ZERO.search(figure) else "+" if value > 0 else MINUS
    return f"{_OVER if figure != text else ''}{sign}{figure}"


_NOT_ZERO = re.compile(r"[1-9]")


@register.filter
def plural(number: int, word: str) -> str:
    """Format a number with its noun: 3 → 3 routers"""
    return f"{count(number)} {plural_of(number, word)}"


@register.filter
def milliseconds(number: float | None) -> str:
    """Format a duration in milliseconds: 812 → 812 ms, 10000 → 10 s"""
    if number is None:
        return NONE
    whole = round(number)
    return f"{whole / 1000:,.10g}{THIN}s" if whole >= 1000 else f"{whole}{THIN}ms"


@register.filter
def minutes(number: float | None) -> str:
    """Format a duration in minutes: 135 → 2 h 15 min"""
    return span(None if number is None else (round(number) if number >= 1 else number) * 60)


@register.filter
def sub(number: float, other: float) -> float:
    """Subtract, for drawing."""
    return round(number - other, 1)


@register.filter
def halfway(start: float, width: float) -> float:
    """Return the middle of an interval, for drawing."""
    return round(start + width / 2, 1)


@register.filter
def minus(number: int, other: int) -> str:
    return count(number - other)


@register.filter
def at(mapping: Mapping[Any, Any], key: Any) -> Any:
    """Return mapping[key], or an empty tuple."""
    return mapping.get(key, ())


@register.filter
def value(thing: Any) -> str:
    """Format a value of a document: text unchanged, short values as one line of JSON, the rest as YAML."""
    if isinstance(thing, str):
        return thing
    short = json.dumps(thing, ensure_ascii=False)
    if len(short) <= 48:
        return short
    return yaml.safe_dump(thing, sort_keys=False, allow_unicode=True, width=10_000)


@register.simple_tag(takes_context=True)
def with_query(context: template.Context, **changes: Any) -> str:
    """Return this page's query string with some parameters replaced; an empty value removes one."""
    request: HttpRequest = context["request"]
    kept = [(k, v) for k, values in request.GET.lists() if k not in changes for v in values]
    return "?" + urlencode([*kept, *((k, v) for k, v in changes.items() if v != "")])


def _plural(word: str, number: int) -> str:
    return plural_of(number, word) if word == "day" else word


def _signed(text: str, value: float | Decimal) -> str:
    return signed(text, -1) if value < 0 else text
