"""``python -m benchmarks``: run the benchmarks, report, and compare with what was accepted."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import charts, ratios, report
from benchmarks.results import NoYardstick, Results, read

HERE: Final = Path(__file__).parent
OUTPUT: Final = HERE.parent / ".benchmarks"
FULL: Final = OUTPUT / "full.json"
QUICK: Final = OUTPUT / "quick.json"
AGAIN: Final = OUTPUT / "again.json"
PAGE: Final = OUTPUT / "report.html"
QUICK_PAGE: Final = OUTPUT / "quick.html"
PICTURE: Final = HERE / "cost.svg"
DARK_PICTURE: Final = HERE / "cost-dark.svg"

_WIDTH: Final = 120


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, rougher numbers")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="measure and report")
    commands.add_parser("compare", help="measure, and fail if a ratio is worse, twice in a row")
    commands.add_parser("accept", help="accept the ratios of the last full run, and its picture")
    command = parser.parse_args()
    if command.command == "accept":
        _accept()
        return
    try:
        # Before the five minutes.
        accepted = ratios.read_accepted() if command.command == "compare" else {}
    except (OSError, ValueError) as error:
        sys.exit(f"{ratios.ACCEPTED}: {error}; `make bench-accept` writes it anew")
    results = _measure(QUICK if command.quick else FULL, [str(HERE)], quick=command.quick)
    _report(results)
    if command.command == "compare":
        _compare(accepted, results)


def _measure(path: Path, nodes: list[str], *, quick: bool) -> Results:
    OUTPUT.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    # It takes its name only when all has gone well.
    unfinished = path.with_suffix(".part")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--verbose", "-o", "tmp_path_retention_policy=none"),
            *("--benchmark-enable", "--benchmark-only", "--benchmark-quiet"),
            *(f"--benchmark-json={unfinished}", *(["--quick"] if quick else []), *nodes),
        ],
        cwd=HERE.parent,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    unfinished.replace(path)
    try:
        return read(path)
    except NoYardstick as error:
        sys.exit(f"{error}; what is compared with nothing cannot be reported")


def _report(results: Results) -> None:
    page = QUICK_PAGE if results.quick else PAGE
    page.write_text(report.page(results))
    # In a file or a pipe there is room for whole lines.
    report.show(results, Console() if sys.stdout.isatty() else Console(width=_WIDTH))
    print(f"The same with charts: {page.relative_to(HERE.parent)}")


def _compare(accepted: dict[str, float], results: Results) -> None:
    missing = [] if results.quick else sorted(accepted.keys() - results.ratios().keys())
    for key in missing:
        print(f"not measured: {key}")
    for key in sorted(results.ratios().keys() - accepted.keys()):
        print(f"not accepted yet: {key}")

    def measure_again(nodes: list[str]) -> Results:
        print("\nSome ratios are worse; measuring those again.\n", flush=True)
        return _measure(AGAIN, nodes, quick=results.quick)

    worse = ratios.find_worse_twice(accepted, results, measure_again)
    for key, before, now in worse:
        print(f"worse: {key}: {now:.3g}, accepted was {before:.3g}")
    if worse:
        sys.exit(
            f"{len(worse)} ratios are worse by more than {ratios.WORSE_BY:.0%}, twice in a row; "
            "`make bench-accept` accepts those of the last full run"
        )
    if missing:
        sys.exit(f"{len(missing)} accepted ratios were not measured")
    print(f"No ratio is worse by more than {ratios.WORSE_BY:.0%}, twice in a row.")


def _accept() -> None:
    if not FULL.exists():
        sys.exit("there is no full run to accept; make one with `make bench`")
    results = read(FULL)
    ratios.accept(results.ratios())
    picture = charts.cost_and_stages(results)
    PICTURE.write_text(picture)
    DARK_PICTURE.write_text(charts.darkened(picture))
    written = (ratios.ACCEPTED, PICTURE, DARK_PICTURE)
    names = ", ".join(str(path.relative_to(HERE.parent)) for path in written)
    print(f"{names} are those of the last full run; commit them")


if __name__ == "__main__":
    main()
