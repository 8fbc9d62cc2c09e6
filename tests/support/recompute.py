"""`docs/recompute_verdicts.py` as a module: an independent computation of verdicts that shares no code with the
engine."""

import importlib.util
from typing import Any

from tests.support.sources import ROOT

SCRIPT = ROOT / "docs" / "recompute_verdicts.py"


def recompute() -> Any:
    """Load the script again."""
    spec = importlib.util.spec_from_file_location("recompute_verdicts", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
