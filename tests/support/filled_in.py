"""What a browser posts for a form that nobody has changed (HTML, "form submission algorithm")."""

from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

Given = dict[str, list[str]]
_NO_VALUE = {"submit", "button", "reset", "image", "file"}


class _Forms(HTMLParser):
    """Collects, for each form, its successful controls, and the fields that the browser itself would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, Given, list[str]]] = []
        self._inside = False
        self._area: tuple[str, list[str]] | None = None
        self._select: tuple[str, bool, list[tuple[str, bool]]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._inside = True
            self.forms.append((given.get("action") or "", {}, []))
        elif not self._inside:
            return
        elif tag == "input" and given.get("name"):
            self._input(given)
        elif tag == "textarea":
            self._area = (given["name"] or "", [])
        elif tag == "select":
            self._select = (given["name"] or "", "multiple" in given, [])
        elif tag == "option" and self._select:
            self._select[2].append((given.get("value") or "", "selected" in given))

    def handle_data(self, data: str) -> None:
        if self._area:
            self._area[1].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        elif tag == "textarea" and self._area:
            name, parts = self._area
            text = "".join(parts).removeprefix("\n")
            self._add(name, "\r\n".join(text.splitlines()) + ("\r\n" if text.endswith("\n") else ""))
            self._area = None
        elif tag == "select" and self._select:
            name, many, options = self._select
            chosen = [value for value, selected in options if selected]
            for value in chosen if many else (chosen or [value for value, _ in options])[:1]:
                self._add(name, value)
            self._select = None

    def _input(self, given: dict[str, Any]) -> None:
        kind = given.get("type", "text")
        if kind in _NO_VALUE or (kind in ("checkbox", "radio") and "checked" not in given):
            return
        value = given.get("value", "on" if kind == "checkbox" else "")
        if kind != "hidden":  # a line of text has no line breaks
            value = value.replace("\r", "").replace("\n", "")
        self._add(given["name"], value)
        if kind in ("number", "datetime-local") and value and _is_refused(kind, value, given):
            self.forms[-1][2].append(given["name"])

    def _add(self, name: str, value: str) -> None:
        self.forms[-1][1].setdefault(name, []).append(value)


def _is_refused(kind: str, value: str, given: dict[str, Any]) -> bool:
    """Whether the field's `min`, `max` or `step` forbids its value."""
    step = given.get("step", "1" if kind == "number" else "60")
    if kind == "datetime-local":
        return step != "any" and value.count(":") > 1 and int(value[-2:]) % int(step) != 0
    number, low = Decimal(value), Decimal(given.get("min", "0"))
    if ("min" in given and number < low) or ("max" in given and number > Decimal(given["max"])):
        return True
    return step != "any" and (number - low) % Decimal(step) != 0


def filled_in(response: Any, *, having: str) -> Given:
    """The controls of the page's form that has a field `having`. Fails if the browser would not send it."""
    read = _Forms()
    read.feed(response.content.decode())
    ((_, given, refused),) = [form for form in read.forms if having in form[1]]
    assert not refused, f"a browser would not send {refused}"
    given.pop("csrfmiddlewaretoken", None)
    return given
