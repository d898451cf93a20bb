"""The report of a run: tables for the terminal, and a page with the same tables and the charts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
import rich.box
import rich.table
from markdown_it import MarkdownIt
from rich.console import Console

from benchmarks import charts, groups
from benchmarks.results import Measurement, Results, Role
from benchmarks.sizes import label
from benchmarks.stages import STAGES, stages
from benchmarks.targets import targets

HERE: Final = Path(__file__).parent

_MISSING: Final = "-"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: What it shows.
        columns: Their names.
        rows: As many texts each.
        notes: What has to be known to read it.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: str


def tables(results: Results) -> list[Table]:
    """Return the tables of the report, the shortest answers last, where a terminal shows them."""
    return [
        _ratios(results),
        _how_far(results),
        _cost(results),
        _stages(results),
        _targets(results),
    ]


def show(results: Results, console: Console) -> None:
    """Print the tables."""
    for table in tables(results):
        shown = rich.table.Table(
            title=table.title,
            title_justify="left",
            title_style="bold",
            caption=table.notes,
            caption_justify="left",
            box=rich.box.SIMPLE_HEAD,
        )
        first, *others = table.columns
        shown.add_column(first)
        for column in others:
            shown.add_column(column, justify="right", no_wrap=True)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def page(results: Results) -> str:
    """Return the page: HTML that needs nothing else."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        results=results,
        charts=charts.draw_all(results),
        tables=tables(results)[::-1],
        stages=STAGES,
        tried=MarkdownIt().render((HERE / "tried.md").read_text()),
    )


def _targets(results: Results) -> Table:
    words = {True: "yes", False: "NO", None: "not measured"}
    rows = []
    for target in targets(results):
        bound = "at least" if target.at_least else "at most"
        measured = _MISSING if target.measured is None else _number(target.measured)
        rows.append([target.what, f"{bound} {target.wanted:g}", measured, words[target.met]])
    return Table(
        "What it must show",
        ["", "wanted", "measured", "reached"],
        rows,
        "Ratios to the yardstick of the same run, where nothing else is said.",
    )


def _cost(results: Results) -> Table:
    rows = []
    for digits in results.lengths():
        fsync = results.find(groups.STEP, "fsync", digits=digits)
        limit = results.find(groups.STEP, "constant body", digits=digits)
        memory = results.find(groups.PEAK_MEMORY, "fsync", digits=digits)
        if fsync and limit and memory:
            os_ = results.find(groups.STEP, "os", digits=digits)
            current = results.find(groups.CURRENT, "current", digits=digits)
            costs = [_seconds(measurement.cost) for measurement in (limit, fsync)]
            ratios = [_ratio(measurement) for measurement in (fsync, os_, current)]
            rows.append([label(digits), *costs, *ratios, f"{memory.cost / 1e6:.0f} MB"])
    return Table(
        "What a request costs over a socket",
        ["digits", "limit", "step", "step/limit", "os/limit", "current/limit", "memory"],
        rows,
        "limit: a constant body of the same size, for 10 digits a bare bjoern application; step: "
        "next and previous in turn, each on disk; then speeds beside the limit's, of steps, of "
        "steps with --durability os, and of current; memory: the most that the "
        "service has held. 64 connections; 16 at a million digits and more, but for memory.",
    )


def _stages(results: Results) -> Table:
    rows = []
    for digits in results.lengths():
        parts = stages(results, digits)
        if parts:
            whole = sum(parts.values())
            rows.append([label(digits), *(f"{part / whole:.0%}" for part in parts.values())])
    return Table("Where the time of such a step goes", ["digits", *STAGES], rows, "")


def _how_far(results: Results) -> Table:
    rows = []
    for found in results.measurements:
        if found.group.startswith(groups.HOW_FAR):
            steps = round(found.facts["seconds"] / found.cost)
            digits = found.facts["digits"][found.role + found.name]
            rows.append([found.name, f"{steps:,}", f"{digits:,}", _ratio(found)])
    return Table(
        "How far one connection steps from 0",
        ["", "steps", "digits", "ratio"],
        rows,
        "",
    )


def _ratios(results: Results) -> Table:
    columns = results.lengths()
    rows: dict[str, dict[str, dict[int | None, str]]] = {}
    for found in results.measurements:
        if found.role is Role.YARDSTICK or found.group.startswith(groups.HOW_FAR):
            continue
        name = found.name
        if found.parameters and found.digits is None:
            name = f"{name}, {found.conditions}"
        rows.setdefault(found.group, {}).setdefault(name, {})[found.digits] = _ratio(found)
    return Table(
        "Speed beside the yardstick",
        ["", "", *map(label, columns)],
        list(_pivoted(results, rows, columns)),
        "Of memory, how sparing with it. More is better; 1 is as good as the yardstick.",
    )


def _pivoted(
    results: Results,
    rows: dict[str, dict[str, dict[int | None, str]]],
    columns: list[int],
) -> Iterator[list[str]]:
    yardsticks = {
        found.group: found.name for found in results.measurements if found.role is Role.YARDSTICK
    }
    for group, ratios_by_name in rows.items():
        yield [f"{group} (yardstick: {yardsticks[group]})", "", *[""] * len(columns)]
        for name, ratios in ratios_by_name.items():
            anywhere = ratios.get(None, "")
            yield [f"  {name}", anywhere, *(ratios.get(digits, "") for digits in columns)]


def _ratio(measurement: Measurement | None) -> str:
    return _number(measurement.ratio) if measurement else _MISSING


def _number(value: float) -> str:
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _seconds(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
