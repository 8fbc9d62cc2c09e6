"""Reading the console's pages."""

import re
from typing import Any


def text(response: Any) -> str:
    """The page's words, white space made one blank (the narrow one between figure and unit stays)."""
    return re.sub(r"[ \n]+", " ", response.content.decode())
