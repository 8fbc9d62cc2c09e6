"""The alerts on series of several gateways, evaluated by promtool."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.deployment import DEPLOY

PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="there is no promtool (Debian: the package prometheus)"
)


@needs_promtool
def test_routers_that_are_behind_are_counted_once_however_many_gateways_report_them(tmp_path: Path) -> None:
    """Each gateway reports the environment's whole fleet."""
    series = 'pointsman_routers{environment="production",state="behind",instance="%s"}'
    description = "The fleet page lists them, and the policies that they refuse."
    expected = {
        "exp_labels": {"environment": "production", "severity": "ticket"},
        "exp_annotations": {
            "summary": "3 routers of production have not applied the current revision",
            "description": description,
        },
    }
    test = {
        "interval": "15s",
        "input_series": [{"series": series % name, "values": "3x80"} for name in ("a", "b")],
        "alert_rule_test": [
            {"eval_time": "10m", "alertname": "PointsmanRoutersBehind", "exp_alerts": [expected]}
        ],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(DEPLOY / "monitoring" / "alerts.yaml")], "tests": [test]})
    )
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
