"""The stored results of runs, and the table on the page."""

from pathlib import Path

from tests.faults import report
from tests.faults.results import Run

RUNS = [
    Run("sqlite", 1, {"clients_cut": [0.5, 2.0], "gateway_killed": [9.0]}, tasks=1_200, changes=30),
    Run("postgresql", 2, {"clients_cut": [1.0]}, ["a: 1 lost"], tasks=34, changes=5),
]


def test_the_table_adds_up_the_runs() -> None:
    lines = list(report.table(RUNS))
    assert "| clients cut | 3 | 1.0 | 2.0 |" in lines
    assert "| gateway killed | 1 | 9.0 | 9.0 |" in lines
    assert "| **2 kinds** | **4** | | **9.0** |" in lines
    assert any(
        line.startswith("1 violation in 2 runs; 1,234 tasks recorded by routers, 35 changes asked for.")
        for line in lines
    )
    assert lines[-1] == "\n- a: 1 lost"


def test_a_stored_run_is_read_back(tmp_path: Path) -> None:
    RUNS[1].write(tmp_path / "made" / "run.json")
    assert Run.read((tmp_path / "made" / "run.json").read_text()) == RUNS[1]


def test_a_slow_recovery_is_reported() -> None:
    run = Run("sqlite", 1, {"clients_cut": [0.5, 61.0], "gateway_killed": [60.0]})
    assert run.late() == {"clients_cut": 61.0}
    assert run.faults == 3


def test_the_page_shows_the_stored_runs() -> None:
    text = report.PAGE.read_text()
    assert report.page(report.kept(), text) == text
    assert report.page([], "before " + report.BEGIN + "old" + report.END + " after").endswith(" after")
