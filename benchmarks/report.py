"""Report a run: tables for the terminal, and a page with the same tables and the chart."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import rich.box
import rich.table
from rich.console import Console
from rich.text import Text

from benchmarks import charts, groups
from benchmarks.results import BUSY_FROM, Measurement, Results, Role
from benchmarks.sizes import label
from benchmarks.stages import STAGES, stages
from benchmarks.targets import targets

WIDTH: Final = 130
"""Columns if the output is not a terminal."""


# The least spread that is shown with a ratio, and the seconds that a quick run should take.
_SPREAD_SHOWN: Final = 0.1
_QUICK_SECONDS: Final = 60

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>bigfib: what a request costs</title>
<style>
body {{ max-width: 70rem; margin: 1rem auto; padding: 0 1rem; background: #fff; color: #000; }}
pre {{ overflow-x: auto; font: 13px/1.35 monospace; }}
svg {{ max-width: 100%; height: auto; }}
</style>
{first}
{chart}
{others}
</html>
"""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: Its title.
        columns: The names of its columns.
        rows: Its rows, with a text for each column.
        notes: Notes that explain it.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: str = ""


def tables(results: Results) -> list[Table]:
    """Return the tables of the report that have rows, the most important first."""
    found = [_request, _elsewhere, _targets, _ratios]
    return [table for make in found if (table := make(results)).rows]


def headline(results: Results) -> list[str]:
    """Return the lines before the tables: date, commit, machine, and whether it was busy."""
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    lines = [
        f"Measured on {results.date} at {results.commit}"
        + (", quickly: the numbers are rough" if results.quick else ""),
        f"Machine: {machine}",
    ]
    if results.busy or results.others >= BUSY_FROM:
        lines.append(
            f"THE MACHINE WAS BUSY: other programs used {results.others:.2f} cores. "
            f"{len(results.busy)} of {len(results.measurements)} figures, marked ?, were measured "
            f"while it was {BUSY_FROM} or more."
        )
    else:
        lines.append(f"The machine was quiet: other programs used {results.others:.2f} cores.")
    if results.quick and results.seconds > _QUICK_SECONDS:
        lines.append(f"It took {results.seconds:.0f} s, more than the minute that it should take.")
    else:
        lines.append(f"It took {results.seconds:.0f} s.")
    lines += [f"FAILED: {name}: {reason}" for name, reason in results.failed.items()]
    return lines


def show(results: Results, console: Console) -> None:
    """Print the report, the most important table last, because a terminal shows the end."""
    for table in tables(results)[::-1]:
        print_table(table, console)
    _print_headline(results, console)


def page(results: Results) -> str:
    """Return the page, in HTML without other files, the most important table first."""
    first, others = (
        Console(record=True, width=WIDTH, file=io.StringIO(), color_system=None) for _ in range(2)
    )
    _print_headline(results, first)
    for number, table in enumerate(tables(results)):
        print_table(table, others if number else first)
    text = [
        each.export_html(code_format="<pre>{code}</pre>", inline_styles=True)
        for each in (first, others)
    ]
    return _PAGE.format(first=text[0], chart=charts.cost_and_stages(results), others=text[1])


def _print_headline(results: Results, console: Console) -> None:
    for line in headline(results):
        # Do not wrap names of failed benchmarks, so that they can be copied.
        console.print(Text(line), soft_wrap=line.startswith("FAILED"))


def print_table(table: Table, console: Console) -> None:
    """Print a table."""
    drawn = rich.table.Table(
        title=Text(table.title),
        title_justify="left",
        title_style="bold",
        caption=Text(table.notes),
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
    )
    first, *others = table.columns
    drawn.add_column(first)
    for column in others:
        drawn.add_column(column, justify="right", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    console.print(drawn)


def _request(results: Results) -> Table:
    rows = []
    for digits in results.lengths():
        step = results.find(groups.STEP, "fsync", digits=digits)
        parts = stages(results, digits)
        if step and parts:
            whole = sum(parts.values())
            shares = [f"{seconds(part)} {part / whole:3.0%}" for part in parts.values()]
            rows.append([label(digits), _cost(step), *shares])
    return Table(
        "A durable step costs in all, and its parts",
        ["digits", "in all", *STAGES],
        rows,
        "For each request, with 64 at a time (16 from a million digits on), the server on one "
        "core and the load on another. "
        + "; ".join(f"{stage}: {how}" for stage, how in STAGES.items()),
    )


def _elsewhere(results: Results) -> Table:
    names = ["livez", "current", "step", "term"]
    rows = [
        [label(digits), *(_cost(each) for each in costs if each)]
        for digits in results.lengths()
        if all(costs := [results.find(groups.ELSEWHERE, name, digits=digits) for name in names])
    ]
    notes = "For each request, with 16 at a time, seen from this machine. livez: a constant word."
    return Table("A request to the service at --url costs", ["digits", *names], rows, notes)


def _targets(results: Results) -> Table:
    words = {True: "yes", False: "NO", None: "machine busy"}
    measured = [target for target in targets(results) if target.measured is not None]
    missing = len(list(targets(results))) - len(measured)
    rows = [
        [
            target.what,
            f"{'at least' if target.at_least else 'at most'} {target.wanted:g}",
            _number(target.measured or 0.0),
            words[target.met],
        ]
        for target in measured
    ]
    note = "Ratios to the yardstick of the same run, unless another unit is given."
    if missing:
        note += f" {missing} targets were not measured."
    return Table("Targets", ["", "wanted", "measured", "reached"], rows, note)


def _ratios(results: Results) -> Table:
    columns = results.lengths()
    rows: dict[str, dict[str, dict[int | None, str]]] = {}
    yardsticks: dict[str, str] = {}
    for found in results.measurements:
        if found.role is Role.YARDSTICK:
            yardsticks[found.group] = found.name
            continue
        name = found.name
        if found.parameters and found.digits is None:
            name = f"{name}, {found.conditions}"
        rows.setdefault(found.group, {}).setdefault(name, {})[found.digits] = _ratio(found)

    def lines() -> Iterator[list[str]]:
        for group, ratios_by_name in rows.items():
            yardstick = yardsticks.get(group, "not measured")
            yield [f"{group} (yardstick: {yardstick})", "", *[""] * len(columns)]
            for name, ratios in ratios_by_name.items():
                yield [f"  {name}", *(ratios.get(digits, "") for digits in (None, *columns))]

    return Table(
        "Speed compared with the yardstick",
        ["", "", *map(label, columns)],
        list(lines()),
        "For memory: how many times less. More is better; 1 is as good as the yardstick. ±: half "
        f"the interquartile range, from {_SPREAD_SHOWN:.0%} on. ?: on a busy machine.",
    )


def _cost(measurement: Measurement) -> str:
    return seconds(measurement.cost) + _doubt(measurement, shown_from=0.0)


def _ratio(measurement: Measurement) -> str:
    if measurement.ratio is None:
        return "-"
    return _number(measurement.ratio) + _doubt(measurement, _SPREAD_SHOWN)


def _doubt(measurement: Measurement, shown_from: float) -> str:
    spread = measurement.spread
    shown = f" ±{spread:.0%}" if spread is not None and spread >= shown_from else ""
    return shown + ("?" if measurement.busy else "")


def _number(value: float) -> str:
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def seconds(value: float) -> str:
    """Return a time in s, ms or µs."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"
