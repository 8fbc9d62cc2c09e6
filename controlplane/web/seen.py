"""Forms of settings that several people may edit at once."""

from typing import Any

from django import forms


class SeenForm(forms.Form):
    """Carries the version that was shown (`expected`). If somebody else saved a newer one, `conflicts` shows the saved
    values next to the typed ones, and a second save overwrites them.

    `initial` holds what is saved now, with its version.
    """

    expected: forms.Field = forms.IntegerField(required=False, max_value=2**31 - 1, widget=forms.HiddenInput)
    shows_conflicts = True
    _stale = False

    @property
    def stale(self) -> bool:
        return self._stale

    @stale.setter
    def stale(self, stale: bool) -> None:
        """Set by `pages.attempt`. Lets the next save pass."""
        self._stale = stale
        if stale:
            data = self.data.copy()  # type: ignore[attr-defined]  # a QueryDict
            data["expected"] = str(self.initial["expected"])
            self.data = data

    @property
    def conflicts(self) -> list[tuple[str, str, str]]:
        """Return (field, saved value, typed value) where they differ."""
        names = [name for name in self.changed_data if name in self.initial and name != "expected"]
        return [
            (
                str(self[name].label),
                shown_value(self, name, self.initial[name]),
                shown_value(self, name, self.cleaned_data.get(name)),
            )
            for name in names
        ]


def shown_value(form: forms.BaseForm, name: str, value: Any) -> str:
    """Return a field's value as words, to compare a saved one with a typed one; a dash if it is empty."""
    field, value = form.fields[name], getattr(value, "pk", value)
    if isinstance(field, forms.BooleanField):
        return "yes" if value else "no"
    if isinstance(field, forms.ModelChoiceField):
        found = field.queryset.filter(pk=value).first() if field.queryset is not None else None
        return str(found or "–")
    labels = dict(getattr(field, "choices", ()))
    if isinstance(value, list | tuple):
        return ", ".join(str(labels.get(each, each)) for each in value) or "–"
    shown = field.prepare_value(value)
    return "–" if shown in (None, "") else str(labels.get(shown, shown))


def kept_line(typed: str, saved: str) -> str:
    """Return `saved` if `typed` is what a browser sends for it: a line of text, without its line breaks."""
    return saved if typed == saved.translate(_BREAKS).strip() else typed


_BREAKS = {ord("\r"): None, ord("\n"): None}
