"""Reading the pages of the console."""

import re
from typing import Any


def text(response: Any) -> str:
    """Return the page's text with white space collapsed and without places for line breaks; the narrow space between
    figure and unit stays."""
    return re.sub(r"[ \n]+", " ", response.content.decode().replace("<wbr>", ""))
