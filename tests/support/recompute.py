"""`docs/recompute_verdicts.py` as a module: the verdicts' second opinion, which shares no line with the engine."""

import importlib.util
from typing import Any

from tests.support.sources import ROOT

SCRIPT = ROOT / "docs" / "recompute_verdicts.py"


def recompute() -> Any:
    """The script, loaded anew."""
    spec = importlib.util.spec_from_file_location("recompute_verdicts", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
