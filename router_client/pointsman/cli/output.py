"""Output of commands: tables for people, JSON for programs, and errors as a sentence.

Names, reasons and files are other people's text. All of it is printed here, with its control characters made visible.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pointsman.visible import json_text, one_line, visible

if TYPE_CHECKING:
    from pointsman.cli.server import Server

__all__ = ["CliError", "Output", "Settings", "complain", "lines"]


class CliError(Exception):
    """Ends a command with a message. `exit_code` is 1 for a negative result, 2 if the command could not be run."""

    def __init__(self, sentence: str, exit_code: int = 2) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class Output:
    """Standard output, as text or JSON. Notes go to standard error, so that the JSON stays valid."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a message for people, of one line."""
        if self.as_json:
            complain(one_line(text))
        else:
            self._console.print(one_line(text), markup=False)

    def data(self, document: Any, text: str = "") -> None:
        """Print the result, as JSON or as text. Other people's text within it must be `one_line`."""
        if self.as_json or not text:
            print(json_text(document))
        else:
            self._console.print(visible(text), markup=False)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Any]], document: Any) -> None:
        """Print the result as a table, or the document as JSON."""
        if self.as_json:
            print(json_text(document))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in heads:
            table.add_column(Text(head), overflow="fold")
        for row in rows:  # as `Text`: rich takes [brackets] in a str for markup
            table.add_row(*(Text("–" if cell is None or cell == "" else one_line(cell)) for cell in row))
        self._console.print(table)


@dataclass(slots=True)
class Settings:
    """The global options, given before the command."""

    server: str
    key: str
    output: Output

    def connect(self) -> Server:
        """Return the control plane. Raises `CliError` if its address or key is missing."""
        from pointsman.cli.server import Server

        if not self.server:
            raise CliError("The control plane's address is missing: set --server https://… or POINTSMAN_URL.")
        if not self.key:
            raise CliError(
                "An admin key (pma_…) is missing: set --key or POINTSMAN_KEY. An admin can create one in the console."
            )
        return Server(self.server, self.key)


def complain(text: object) -> None:
    """Print a message to standard error."""
    print(visible(text), file=sys.stderr)


def lines(entries: Mapping[str, Any]) -> str:
    """Return `name  value` lines."""
    width = max(map(len, entries), default=0)
    return "\n".join(
        f"{name:<{width}}  {'–' if value in (None, '') else one_line(value)}"
        for name, value in entries.items()
    )
