"""Divide the time of a step over a socket into stages."""

from typing import Final

from benchmarks import groups
from benchmarks.results import Results

STAGES: Final = {
    "arithmetic": "a step of the pair alone; with the C kernel that includes the digits",
    "digits": "a step and its digits, minus a step alone",
    "log": "the append",
    "commit": "a step with fsync over the socket, minus one without",
    "application": "next and previous without a socket, minus the above and minus a constant "
    "body without a socket",
    "HTTP": "bjoern and the system: a constant body over the socket",
    "rest": "costs that occur only in combination, such as bodies that fit no cache",
}
"""The stages in the order of a request, each with how it is measured."""


def stages(results: Results, digits: int) -> dict[str, float] | None:
    """Return the seconds of each stage of a step, or None if a measurement is missing."""
    found = [
        results.find(groups.STEP, "fsync", digits=digits),
        results.find(groups.STEP, "os", digits=digits),
        results.find(groups.STEP, "constant body", digits=digits),
        results.find(groups.STEP_ALONE, "step alone", digits=digits),
        results.find(groups.STEP_AND_DIGITS, "step", digits=digits),
        results.find(groups.APPEND, "append"),
        results.find(groups.WITHOUT_SOCKET, "next and previous in turn", digits=digits),
        results.find(groups.WITHOUT_SOCKET, "constant body", digits=digits),
    ]
    costs = [measurement.cost for measurement in found if measurement]
    if len(costs) < len(found):
        return None
    whole, without_sync, network, step, step_and_digits, append, application, constant = costs
    parts = {
        "arithmetic": step,
        "digits": step_and_digits - step,
        "log": append,
        "commit": whole - without_sync,
        "application": application - constant - step_and_digits - append,
        "HTTP": network,
    }
    # Differences of medians may be slightly negative.
    parts = {name: max(seconds, 0.0) for name, seconds in parts.items()}
    return {**parts, "rest": max(whole - sum(parts.values()), 0.0)}
