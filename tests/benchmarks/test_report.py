"""The report of a run with chosen costs."""

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks import charts, groups, report
from benchmarks.results import Results
from benchmarks.stages import STAGES, stages
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
        "digits": 5,  # 8 with the step
        "log": 2,
        "commit": 40,  # 100 - 60
        "application": 5,  # 16 - 1 - 8 - 2
        "HTTP": 20,
        "rest": 25,  # the remainder to 100
    }


def test_no_stages_where_one_was_not_measured(path: Path) -> None:
    without_append = [each for each in whole_run() if each["group"] != groups.APPEND]
    assert stages(write(path, without_append), 10_000) is None


def test_first_table_shows_what_a_request_costs_and_of_which_parts(results: Results) -> None:
    first = report.tables(results)[0]
    assert first.columns == ["digits", "in all", *STAGES]
    assert first.rows == [
        [
            *("10k", "100 µs ±0%", "3 µs  3%", "5 µs  5%", "2 µs  2%"),
            *("40 µs 40%", "5 µs  5%", "20 µs 20%", "25 µs 25%"),
        ]
    ]


def test_table_of_ratios_is_by_group_and_digits(path: Path) -> None:
    run = write(
        path,
        [
            measured("steps", "yardstick_gmpy2", 9.0, digits=10),
            measured("steps", "packed_decimal", 3.0, digits=10),
            measured("append", "append", 200.0, others=1.5, appends=64),
            measured("append", "yardstick_pwrite", 1.0),
            measured("steps", "yardstick_gmpy2", 9.0, digits=1000),
            measured("steps", "packed_decimal", 0.09, digits=1000),
        ],
    )
    assert rows(run, "Speed compared") == [
        ["steps (yardstick: gmpy2)", "", "", ""],
        ["  packed decimal", "", "3.00", "100"],
        ["append (yardstick: pwrite)", "", "", ""],
        ["  append, 64 appends", "0.005?", "", ""],
    ]


@pytest.mark.parametrize(
    ("others", "met", "shown"), [(0.0, False, "NO"), (0.5, None, "machine busy")]
)
def test_target_that_was_not_measured_on_a_quiet_machine_is_not_called_missed(
    path: Path, others: float, met: bool | None, shown: str
) -> None:
    at = {"digits": 208_988}
    costs = {"yardstick constant body": [0.49], "fsync": [1.0], "os": [1.0]}
    one_piece = "alternative constant body in one piece"
    socket = turns(groups.STEP, costs | {one_piece: [0.5]}, **at)
    run = write(
        path,
        [
            measured(groups.STEP_AND_DIGITS, "yardstick_gmpy2", 400.0, **at),
            measured(groups.STEP_AND_DIGITS, "step", 1.0, **at),
            socket | {"others": others},
        ],
    )
    found = {target.what: (target.measured, target.met) for target in targets(run)}
    step = f"{groups.STEP}, 209k digits: fsync"
    assert found[f"{groups.STEP_AND_DIGITS}, 209k digits: step"] == (400.0, True)
    assert found[f"{groups.STEP_AND_DIGITS}, 2.1M digits: step"] == (None, None)
    assert found[step] == (0.49, met)
    assert found[f"{step} compared with a constant body in one piece"][0] == 0.5
    assert [row[3] for row in rows(run, "Targets")][:2] == ["yes", shown]
    (table,) = [each for each in report.tables(run) if each.title == "Targets"]
    assert f"{len(found) - 3} targets were not measured" in table.notes


def test_cliff_in_the_cost_of_a_digit_is_found(path: Path) -> None:
    run = write(
        path,
        [
            measured(groups.STEP_AND_DIGITS, name, cost, digits=digits)
            # The costs per digit are 9, 2, 4 and 3; the first length is too short to count.
            for digits, cost in [
                *((10, 90), (10_000, 20_000), (100_000, 400_000), (2_089_877, 3 * 2_089_877)),
            ]
            for name in ("yardstick_gmpy2", "step")
        ],
    )
    (flat,) = [
        each for each in targets(run) if each.what.startswith(f"{groups.STEP_AND_DIGITS}: cost of")
    ]
    assert (flat.measured, flat.met) == (2.0, False)


def test_a_cliff_may_be_where_nothing_was_measured(path: Path) -> None:
    run = write(
        path,
        [
            measured(groups.STEP_AND_DIGITS, name, 2.0 * digits, digits=digits)
            for digits in (10, 100_000, 2_089_877)
            for name in ("yardstick_gmpy2", "step")
        ],
    )
    (flat,) = [
        each for each in targets(run) if each.what.startswith(f"{groups.STEP_AND_DIGITS}: cost of")
    ]
    assert flat.met is None


def test_page_begins_with_the_table_and_the_chart_and_needs_nothing_else(results: Results) -> None:
    page = report.page(results)
    table, chart, others = (page.index(text) for text in ("costs", "<svg", "Speed compared"))
    assert table < chart < others
    assert page.count("<svg") == 1
    assert "Abacus &lt;1&gt;" in page
    for reference in ("<link", "<script", "<img", 'src="', "@import", "url(http"):
        assert reference not in page


def test_headline_calls_a_busy_machine_busy_and_names_what_failed(path: Path) -> None:
    failed = {"benchmarks/bench_x.py::bench_y": "it broke"}
    quiet = report.headline(write(path, whole_run()))
    assert "The machine was quiet: other programs used 0.01 cores." in quiet
    assert "It took 50 s." in quiet
    run = [{**each, "others": 0.75} for each in whole_run()]
    facts = {"others": 0.75, "failed": failed, "quick": True, "seconds": 75.2}
    busy = "\n".join(report.headline(write(path, run, **facts)))
    assert "THE MACHINE WAS BUSY: other programs used 0.75 cores. 15 of 15 figures" in busy
    assert "It took 75 s, more than the minute" in busy
    assert "FAILED: benchmarks/bench_x.py::bench_y: it broke" in busy


def test_the_limit_is_drawn_in(results: Results) -> None:
    root = ElementTree.fromstring(charts.cost_and_stages(results))
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"limit: a constant body", "step, each on disk", "rest", "arithmetic", "10k"} <= texts


def test_run_without_sockets_is_reported_too(path: Path) -> None:
    in_process = [each for each in whole_run() if "turns" not in each["extra_info"]]
    run = write(path, in_process)
    assert "costs" not in report.tables(run)[0].title
    assert "<svg" in report.page(run)
    shown = io.StringIO()
    report.show(run, Console(file=shown, width=120))
    assert "one step and its digits" in shown.getvalue()
