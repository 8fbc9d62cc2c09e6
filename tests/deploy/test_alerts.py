"""The alerts on series of several gateways, evaluated by promtool."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployment import DEPLOY

PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="there is no promtool (Debian: the package prometheus)"
)
ALERTS = DEPLOY / "monitoring" / "alerts.yaml"


def assert_alert(
    folder: Path, alert: str, severity: str, series: dict[str, str], *, at: str, summary: str | None
) -> None:
    """Assert that at this time the alert fires once, for production, with this summary, or not at all (None).

    `series` are the values every 15 s, in promtool's notation.
    """
    (rule,) = (
        rule for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"] if rule["alert"] == alert
    )
    expected: list[dict[str, Any]] = []
    if summary is not None:
        told = {"summary": summary, "description": rule["annotations"]["description"]}
        expected = [
            {"exp_labels": {"environment": "production", "severity": severity}, "exp_annotations": told}
        ]
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
    }
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [test]}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_routers_that_are_behind_are_counted_once_however_many_gateways_report_them(tmp_path: Path) -> None:
    """Each gateway reports the environment's whole fleet."""
    series = 'pointsman_routers{environment="production",state="behind",instance="%s"}'
    assert_alert(
        tmp_path,
        "PointsmanRoutersBehind",
        "ticket",
        {series % name: "3x80" for name in ("a", "b")},
        at="10m",
        summary="3 routers of production have not applied the current revision",
    )


@needs_promtool
@pytest.mark.parametrize(
    ("first", "second", "at", "fires"),
    [
        # A revision every second; the second gateway is scraped 14 s after the first.
        ("0+15x80", "14+15x80", "10m", False),
        ("0+15x80", "7x80", "10m", True),
        ("7x40", "7x8 6x32", "10m", True),  # one change, missed by one gateway
        ("900x20 0+1x20", "900x20 0+1x20", "6m", False),  # after a restore
        ("7x40", "7x8 _x32", "10m", False),  # one that is down misses nothing
    ],
)
def test_gateways_disagree_if_one_lacks_a_change_for_minutes(
    tmp_path: Path, first: str, second: str, at: str, fires: bool
) -> None:
    """It fired on healthy gateways whose revision changed between two scrapes."""
    series = 'pointsman_snapshot_revision{environment="production",instance="%s"}'
    summary = "Gateways serve different revisions of production" if fires else None
    values = {series % "a": first, series % "b": second}
    assert_alert(tmp_path, "PointsmanGatewaysDisagree", "page", values, at=at, summary=summary)


@needs_promtool
@pytest.mark.parametrize(
    ("values", "at", "behind", "unknown"),
    [
        ("0x80", "15m", False, False),
        ("0+15x80", "15m", True, False),
        ("0x40 stale", "12m", False, False),
        ("0x40 stale", "20m", False, True),
        ("0x40 stale", "80m", False, False),  # the bucket is no longer used
    ],
)
def test_a_bucket_that_is_behind_or_of_unknown_age_is_reported(
    tmp_path: Path, values: str, at: str, behind: bool, unknown: bool
) -> None:
    series = {'pointsman_published_behind_seconds{environment="production",instance="a"}': values}
    summary = "The bucket of production is 15m 0s behind" if behind else None
    assert_alert(tmp_path, "PointsmanBucketBehind", "page", series, at=at, summary=summary)
    summary = "It is unknown whether the bucket of production is current" if unknown else None
    assert_alert(tmp_path, "PointsmanBucketUnknown", "page", series, at=at, summary=summary)
