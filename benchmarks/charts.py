"""Draw the chart of the report, as SVG."""

import io
import re
from typing import Any, Final

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from benchmarks import groups
from benchmarks.results import Results
from benchmarks.sizes import label
from benchmarks.stages import STAGES, stages

_COLOURS: Final = ["#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#bbbbbb", "#dddddd"]
_LIMIT: Final[dict[str, Any]] = {"color": "black", "linestyle": "--", "marker": ""}

# Background, text and grid of a light page, and of a dark one; lines and bars keep their colours.
_DARK: Final = {"#ffffff": "#0d1117", "#000000": "#e6edf3", "#eeeeee": "#30363d"}

_STYLE: Final[dict[str, Any]] = {
    # Text stays text, and the same numbers make the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "bigfib",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eeeeee",
    "legend.frameon": False,
    "lines.marker": "o",
    "lines.markersize": 3,
}


def cost_and_stages(results: Results) -> str:
    """Return a chart of what a request costs over a socket, and of the share of each stage."""
    with style.context(_STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.set_prop_cycle(color=_COLOURS)
        _draw_cost(results, left)
        _draw_stages(results, right)
        return _svg(figure)


def darkened(svg: str) -> str:
    """Return the chart in the colours of a dark page."""
    svg = re.sub("#[0-9a-f]{6}", lambda colour: _DARK.get(colour[0], colour[0]), svg)
    # Text has no colour of its own; it inherits this one.
    return svg.replace("<svg ", f'<svg fill="{_DARK["#000000"]}" ', 1)


def _draw_cost(results: Results, axes: Axes) -> None:
    axes.set_title("one request over a socket")
    for shown, group, name, look in (
        ("addition and digits() of gmpy2 alone", groups.STEP_AND_DIGITS, "gmpy2", {}),
        ("step, each on disk", groups.STEP, "fsync", {}),
        ("step, --durability os", groups.STEP, "os", {}),
        ("current", groups.CURRENT, "current", {}),
        ("limit: a constant body", groups.STEP, "constant body", _LIMIT),
    ):
        found = results.by_digits(group, name)
        if at := sorted(found):
            axes.plot(at, [found[digits].cost for digits in at], label=shown, **look)
    axes.set(xscale="log", yscale="log", xlabel="digits")
    axes.yaxis.set_major_formatter(EngFormatter("s"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if axes.lines:
        axes.legend()


def _draw_stages(results: Results, axes: Axes) -> None:
    axes.set_title("where the time of a step goes")
    measured = {digits: stages(results, digits) for digits in results.lengths()}
    columns = {digits: parts for digits, parts in measured.items() if parts}
    names = [label(digits) for digits in columns]
    bottom = [0.0] * len(columns)
    for stage in STAGES:
        shares = [100 * parts[stage] / sum(parts.values()) for parts in columns.values()]
        axes.bar(names, shares, bottom=bottom, label=stage, width=0.7)
        bottom = [below + share for below, share in zip(bottom, shares, strict=True)]
    axes.set(xlabel="digits", ylabel="%", ylim=(0, 100))
    if columns:
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5))


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    figure.savefig(file, format="svg", metadata=nothing)
    # Skip the XML declaration and the document type, which may not be inside a page.
    text = file.getvalue()
    return text[text.index("<svg") :]
