"""The code that the how-tos show is the real code."""

import ast
import re
import textwrap

from tests.support.sources import ROOT

SHOWN = re.compile(r"<!-- source (\S+) (\w+) -->\n *```python\n(.*?)\n *```", re.DOTALL)


def test_the_how_tos_show_functions_as_they_are() -> None:
    compared = 0
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for path, name, code in SHOWN.findall(page.read_text()):
            text = (ROOT / path).read_text()
            functions = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
            function = next(node for node in functions if node.name == name)
            first = min([function.lineno, *(each.lineno for each in function.decorator_list)])
            real = "\n".join(text.splitlines()[first - 1 : function.end_lineno])
            assert textwrap.dedent(code) == real, f"{page.name} shows another {name} than {path} has"
            compared += 1
    assert compared


def test_the_page_names_files_and_templates_that_exist() -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.\w+)`", (ROOT / "docs" / "how-to" / "add-a-page.md").read_text())
    places = (ROOT, ROOT / "templates", ROOT / "tests")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []
