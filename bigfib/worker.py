"""The process that puts one far term into the digit cache, and tells the service how far it is.

It is run by `bigfib.jobs` as ``python -m bigfib.worker PARENT N DIRECTORY MAX_BYTES``. Each line
that it prints is a word and what belongs to it: ``progress`` and a number from 0 to 1, at the end
``done`` and the seal of the file, or ``memory`` or ``storage`` and the reason why there is none.
"""

import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import Final

from bigfib import computation
from bigfib.digit_cache import DigitCache
from bigfib.parent import end_with

# Measured at 10^7 .. 10^9: the most that a process maps is 23 MB and 0.75 bytes for each index.
_MEMORY_AT_LEAST: Final = 64 << 20


def memory_limit(n: int) -> int:
    """Return how many bytes the process that computes F(n) may map, besides what it has now."""
    return _MEMORY_AT_LEAST + n


def main(n: int, cache: DigitCache) -> None:
    """Compute F(n), unless it is there."""
    try:
        with cache.lock(n):
            seal = cache.check(n)
            if seal is None:
                digits = computation.digits(n, lambda done: _say("progress", done))
                seal = cache.store(n, digits)
    except MemoryError:
        _say("memory", f"{memory_limit(n)} bytes are not enough")
    except (OSError, ValueError) as error:
        _say("storage", str(error).replace("\n", " "))
    else:
        _say("done", *seal)


def _say(*words: object) -> None:
    print(*words, flush=True)


def _give_way(parent: int, n: int) -> None:
    """Let the service go before this process, and end with it."""
    end_with(parent)
    # A Ctrl-C is for the service. A session of its own would do as well, but Linux shares out the
    # cores among sessions first, and by niceness only within one.
    os.setpgid(0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _mapped_bytes() + memory_limit(n)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with contextlib.suppress(OSError):
        # Should the system lack memory, it ends this process and not the service.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _mapped_bytes() -> int:
    """Return how much address space this process has: Python and, on some systems, all locales."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    _give_way(int(sys.argv[1]), int(sys.argv[2]))
    main(int(sys.argv[2]), DigitCache(Path(sys.argv[3]), int(sys.argv[4])))
