"""What part of a step over a socket is spent in which stage."""

from typing import Final

from benchmarks import groups
from benchmarks.results import Results

STAGES: Final = {
    "arithmetic": "the step of the pair alone",
    "text": "its digits: a step with them, less a step alone",
    "log": "the append",
    "sync": "a step with fsync over the socket, less one without",
    "framework": "next and previous in turn in the application without a socket, less all "
    "above, and less what a constant body takes there",
    "network": "bjoern and the kernel: a constant body over the socket",
    "rest": "what is left of the whole: what the stages cost together and not apart, such as the "
    "memory of 64 bodies that no cache holds",
}
"""The stages in the order of a request, each with how it is measured."""


def stages(results: Results, digits: int) -> dict[str, float] | None:
    """Return the seconds of each stage of a step, or None where something was not measured."""

    def cost(group: str, name: str, **parameters: object) -> float:
        found = results.find(group, name, **parameters)
        if found is None:
            raise LookupError(name)
        return found.cost

    try:
        whole = cost(groups.STEP, "fsync", digits=digits)
        without_sync = cost(groups.STEP, "os", digits=digits)
        network = cost(groups.STEP, "constant body", digits=digits)
        step = cost(groups.STEP_ALONE, "packed decimal alone", digits=digits)
        step_and_digits = cost(groups.STEP_AND_DIGITS, "packed decimal", digits=digits)
        append = cost(groups.APPEND, "append")
        application = cost(groups.WITHOUT_SOCKET, "next and previous in turn", digits=digits)
        constant = cost(groups.WITHOUT_SOCKET, "constant body", digits=digits)
    except LookupError:
        return None
    parts = {
        "arithmetic": step,
        "text": step_and_digits - step,
        "log": append,
        "sync": whole - without_sync,
        "framework": application - constant - step_and_digits - append,
        "network": network,
    }
    # Each is a difference of medians, which may fall below nothing where it is small.
    parts = {name: max(seconds, 0.0) for name, seconds in parts.items()}
    return {**parts, "rest": max(whole - sum(parts.values()), 0.0)}
