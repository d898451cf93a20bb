"""``python -m benchmarks``: run the benchmarks, report, and compare runs."""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import charts, differences, ratios, report
from benchmarks.results import Results, SeveralYardsticks, read

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
OUTPUT: Final = ROOT / ".benchmarks"
PICTURE: Final = HERE / "cost.svg"
DARK_PICTURE: Final = HERE / "cost-dark.svg"

# A virtual machine is never idle for four minutes. Ratios of those moments are not accepted.
_MOST_BUSY: Final = 0.1

ROUNDS: Final = 3
"""How often `diff` measures each of two commits."""


def main() -> None:
    """Run a command of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="measure and report")
    compare = commands.add_parser("compare", help="fail if a ratio is worse, twice in a row")
    for each in (run, compare):
        each.add_argument("--quick", action="store_true", help="fewer sizes, rougher numbers")
    accept = commands.add_parser("accept", help="accept the ratios of the last full run")
    diff = commands.add_parser("diff", help="compare two runs or commits; fail if one is slower")
    for name in ("A", "B"):
        diff.add_argument(name, help="a file of results (.benchmarks/*.json), or a commit")
    for each in (run, diff):
        each.add_argument("--only", metavar="GROUP", help="benchmarks with this in group or name")
    run.add_argument("--url", help="measure the service at this address")
    for each, do in ((run, _run), (compare, _compare), (accept, _accept), (diff, _diff)):
        each.set_defaults(do=do)
    command = parser.parse_args()
    command.do(command)


def _run(command: argparse.Namespace) -> None:
    options = [f"--{name}={value}" for name in ("only", "url") if (value := getattr(command, name))]
    # Only a full run can be accepted.
    name = "part" if options else "quick" if command.quick else "full"
    results = _measure(name, ["benchmarks", *options], quick=command.quick)
    _report(name, results)
    if results.failed:
        sys.exit(f"{len(results.failed)} benchmarks failed; the others are reported")


def _measure(name: str, arguments: list[str], *, quick: bool, root: Path = ROOT) -> Results:
    """Run the benchmarks below ``root`` in another process, and return the results."""
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / f"{name}.json"
    path.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--verbose", "-o", "tmp_path_retention_policy=none"),
            *("--benchmark-enable", "--benchmark-only", "--benchmark-quiet"),
            *("--continue-on-collection-errors", f"--benchmark-json={path}"),
            *(["--quick"] if quick else []),
            *arguments,
        ],
        cwd=root,
        # So that servers and yardsticks run the code of this directory, too.
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    # Status 1: some benchmarks failed, but there are results of others.
    if done.returncode not in (0, 1) or not path.exists():
        sys.exit(done.returncode or "nothing was measured")
    try:
        return read(path)
    except SeveralYardsticks as error:
        sys.exit(str(error))


def _report(name: str, results: Results) -> None:
    page, table = OUTPUT / f"{name}.html", OUTPUT / f"{name}.csv"
    page.write_text(report.page(results))
    results.write_csv(table)
    report.show(results, _console())
    print(f"Report with the chart: {page.relative_to(ROOT)}. As CSV: {table.relative_to(ROOT)}")


def _console() -> Console:
    # Lines in a file or pipe need not fit a terminal.
    return Console() if sys.stdout.isatty() else Console(width=report.WIDTH)


def _compare(command: argparse.Namespace) -> None:
    try:
        # Fail before the five minutes that measuring takes.
        accepted = ratios.read_accepted()
    except (OSError, ValueError) as error:
        sys.exit(f"{ratios.ACCEPTED}: {error}; `make bench-accept` rewrites it")
    name = "quick" if command.quick else "full"
    results = _measure(name, ["benchmarks"], quick=command.quick)
    _report(name, results)
    missing = [] if results.quick else sorted(accepted.keys() - results.ratios().keys())
    for key in missing:
        print(f"not measured, or on a busy machine: {key}")
    for key in sorted(results.ratios().keys() - accepted.keys()):
        print(f"not accepted yet: {key}")

    def measure_again(nodes: list[str]) -> Results:
        print("\nSome ratios are worse; measuring those again.\n", flush=True)
        return _measure("again", nodes, quick=results.quick)

    worse = ratios.find_worse_twice(accepted, results, measure_again)
    for key, before, now in worse:
        print(f"worse: {key}: {now:.3g}, accepted was {before:.3g}")
    if worse:
        sys.exit(
            f"{len(worse)} ratios are worse by more than {ratios.WORSE_BY:.0%}, twice in a row; "
            "`make bench-accept` accepts those of the last full run"
        )
    if missing:
        sys.exit(f"{len(missing)} accepted ratios were not measured on a quiet machine")
    print(f"No ratio is worse by more than {ratios.WORSE_BY:.0%}, twice in a row.")


def _accept(_command: argparse.Namespace) -> None:
    full = OUTPUT / "full.json"
    if not full.exists():
        sys.exit("there is no full run to accept; make one with `make bench`")
    results = read(full)
    if results.failed or len(results.busy) > _MOST_BUSY * len(results.measurements):
        sys.exit("the last full run is not accepted: benchmarks failed, or the machine was busy")
    ratios.accept(results.ratios())
    picture = charts.cost_and_stages(results)
    PICTURE.write_text(picture)
    DARK_PICTURE.write_text(charts.darkened(picture))
    written = (ratios.ACCEPTED, PICTURE, DARK_PICTURE)
    names = ", ".join(str(path.relative_to(ROOT)) for path in written)
    print(f"{names} are those of the last full run; commit them")


def _diff(command: argparse.Namespace) -> None:
    names = (command.A, command.B)
    if all(Path(name).is_file() for name in names):
        before, after = ([read(Path(name))] for name in names)
    else:
        before, after = _measure_in_turns(names, command.only)
    found = differences.changes(before, after)
    if command.only:
        found = [change for change in found if command.only in change.key]
    if not found:
        sys.exit("the runs have nothing in common")
    report.print_table(differences.table(found, names), _console())
    slower = [change for change in found if change.verdict == "slower"]
    if slower:
        sys.exit(f"{len(slower)} of {len(found)} are slower")


def _measure_in_turns(
    names: tuple[str, str], only: str | None
) -> tuple[list[Results], list[Results]]:
    runs: dict[str, list[Results]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT.parent)))
        trees = [
            (name, stack.enter_context(differences.checked_out(name, directory / str(number))))
            for number, name in enumerate(names)
        ]
        for _ in range(ROUNDS):
            for name, tree in trees:
                what = ["benchmarks", *([f"--only={only}"] if only else [])]
                runs[name].append(_measure("diff", what, quick=True, root=tree))
            # Alternate the order, so that a disturbance affects both.
            trees.reverse()
    return runs[names[0]], runs[names[1]]


if __name__ == "__main__":
    main()
