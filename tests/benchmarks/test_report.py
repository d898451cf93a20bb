"""The report of a run whose costs were chosen by hand."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks import charts, groups, report
from benchmarks.results import Results
from benchmarks.stages import stages
from benchmarks.targets import targets
from tests.benchmarks.run import measured, turns, whole_run, write


@pytest.fixture
def results(path: Path) -> Results:
    return write(path, whole_run())


def rows(results: Results, title: str) -> list[list[str]]:
    (table,) = [table for table in report.tables(results) if table.title.startswith(title)]
    assert all(len(row) == len(table.columns) for row in table.rows)
    return table.rows


def test_stages_of_a_step_add_up_to_its_cost(results: Results) -> None:
    parts = stages(results, 10_000)
    assert parts is not None
    assert {stage: round(1e6 * seconds) for stage, seconds in parts.items()} == {
        "arithmetic": 3,
        "text": 5,  # 8 with the step
        "log": 2,
        "sync": 40,  # 100 - 60
        "framework": 5,  # 16 - 1 - 8 - 2
        "network": 20,
        "rest": 25,  # what is missing to 100
    }


def test_no_stages_where_one_was_not_measured(path: Path) -> None:
    without_append = [each for each in whole_run() if each["group"] != groups.APPEND]
    assert stages(write(path, without_append), 10_000) is None


def test_table_of_costs_has_the_measured_numbers(results: Results) -> None:
    assert rows(results, "What a request costs") == [
        ["10k", "20 µs", "100 µs", "0.20", "0.33", "0.80", "40 MB"]
    ]


def test_table_of_stages_has_their_shares(results: Results) -> None:
    assert rows(results, "Where the time") == [["10k", "3%", "5%", "2%", "40%", "5%", "20%", "25%"]]


def test_table_of_reach_has_steps_and_digits(results: Results) -> None:
    assert rows(results, "How far") == [
        ["mpz", "1,000", "209", "1.00"],
        ["fsync", "500", "104", "0.50"],
    ]


def test_table_of_ratios_is_by_group_and_digits(path: Path) -> None:
    run = write(
        path,
        [
            measured("steps", "yardstick_mpz", 9.0, digits=10),
            measured("steps", "packed_decimal", 3.0, digits=10),
            measured("append", "append", 200.0, appends=64),
            measured("append", "yardstick_pwrite", 1.0),
            measured("steps", "yardstick_mpz", 9.0, digits=1000),
            measured("steps", "packed_decimal", 0.09, digits=1000),
        ],
    )
    assert rows(run, "Speed beside") == [
        ["steps (yardstick: mpz)", "", "", ""],
        ["  packed decimal", "", "3.00", "100"],
        ["append (yardstick: pwrite)", "", "", ""],
        ["  append, 64 appends", "0.005", "", ""],
    ]


def test_targets_are_reached_missed_or_not_measured(path: Path) -> None:
    at = {"digits": 208_988}
    costs = {"yardstick constant body": [0.49], "fsync": [1.0], "os": [1.0]}
    one_piece = "alternative constant body in one piece"
    run = write(
        path,
        [
            measured(groups.STEP_AND_DIGITS, "yardstick_mpz", 45.0, **at),
            measured(groups.STEP_AND_DIGITS, "packed_decimal", 1.0, **at),
            turns(groups.STEP, costs | {one_piece: [0.5]}, **at),
        ],
    )
    found = {target.what: (target.measured, target.met) for target in targets(run)}
    step = f"{groups.STEP}, 209k digits: fsync"
    assert found[f"{groups.STEP_AND_DIGITS}, 209k digits: packed decimal"] == (45.0, True)
    assert found[f"{groups.STEP_AND_DIGITS}, 2.1M digits: packed decimal"] == (None, None)
    assert found[step] == (0.49, False)
    assert found[f"{step} beside a constant body in one piece"] == (0.5, True)


def test_cliff_in_the_cost_of_a_digit_is_found(path: Path) -> None:
    run = write(
        path,
        [
            measured(groups.STEP_AND_DIGITS, name, cost, digits=digits)
            # Per digit 9, 2, 4 and 3; the first is too short to count.
            for digits, cost in [
                *((10, 90), (10_000, 20_000), (100_000, 400_000), (2_089_877, 3 * 2_089_877)),
            ]
            for name in ("yardstick_mpz", "packed_decimal")
        ],
    )
    (flat,) = [each for each in targets(run) if each.what.endswith("dearest over cheapest")]
    assert (flat.measured, flat.met) == (2.0, False)


def test_a_cliff_may_be_where_nothing_was_measured(path: Path) -> None:
    run = write(
        path,
        [
            measured(groups.STEP_AND_DIGITS, name, 2.0 * digits, digits=digits)
            for digits in (10, 100_000, 2_089_877)
            for name in ("yardstick_mpz", "packed_decimal")
        ],
    )
    (flat,) = [each for each in targets(run) if each.what.endswith("dearest over cheapest")]
    assert flat.met is None


def test_page_of_the_report_needs_no_other_file(results: Results) -> None:
    page = report.page(results)
    assert page.count("<svg") == 2
    assert "Tried without gain" in page
    assert "Abacus &lt;1&gt;" in page
    for reference in ("<link", "<script", "<img", 'src="', "@import", "url(http"):
        assert reference not in page


def test_chart_has_the_limit_and_the_stages(results: Results) -> None:
    root = ElementTree.fromstring(charts.cost_and_stages(results))
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"limit: a constant body", "step, each on disk", "rest", "arithmetic", "10k"} <= texts


def test_a_run_without_sockets_is_reported_too(path: Path) -> None:
    in_process = [each for each in whole_run() if "turns" not in each["extra_info"]]
    run = write(path, in_process)
    assert rows(run, "What a request costs") == []
    assert "<svg" in report.page(run)
    shown = io.StringIO()
    report.show(run, Console(file=shown, width=120))
    assert re.search(r"current over a socket.* at least 0\.62 +- +not measured", shown.getvalue())
