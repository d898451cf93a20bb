"""A log of a million sequences: how long it takes to open, and to append while it is rewritten.

Run by ``make bench``. The yardsticks, in the same run: unpickling a dictionary of the same content,
and one ``fdatasync`` of one page.
"""

import os
import pickle
import tempfile
import time
from multiprocessing import Process
from pathlib import Path
from statistics import median
from typing import Final

from bigfib.state.log import Durability, Log

SEQUENCES: Final = 1_000_000
HERE: Final = Path(__file__).parent


def peak_memory() -> int:
    """Return the most memory that this process has held, in MB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024


def one_sync(path: Path) -> float:
    """Return the median time of a sync, in seconds."""
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(21):
            file.write(bytes(4096))
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    return median(times)


def unpickle(path: Path) -> float:
    """Return how long Python takes to load the same content from its own format, in seconds."""
    content = path.with_name("pickle").read_bytes()
    begin = time.perf_counter()
    pickle.loads(content)
    return time.perf_counter() - begin


def build(path: Path) -> None:
    """Write the worst log there is: with any more records, it would be rewritten at the start."""
    with Log(path, Durability.OS, rewrite_bytes=1 << 40) as log:
        for position in (1000, 1001, 1002):
            for number in range(SEQUENCES):
                log.append(number.to_bytes(16, "big"), position)
        path.with_name("pickle").write_bytes(pickle.dumps(log.latest))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=HERE) as directory:
        path = Path(directory) / "state.log"
        # In a process of its own, for its memory is not to count.
        builder = Process(target=build, args=(path,))
        builder.start()
        builder.join()
        before = peak_memory()
        begin = time.perf_counter()
        log = Log(path, rewrite_bytes=path.stat().st_size)
        opened = time.perf_counter() - begin
        peak = peak_memory()
        print(
            f"open {log.records:,} records of {len(log.latest):,} sequences: {opened:.2f} s "
            f"(unpickling the same: {unpickle(path):.2f} s); peak {peak} MB ({before} before)"
        )

        inode = path.stat().st_ino
        times: list[float] = []
        while path.stat().st_ino == inode:
            begin = time.perf_counter()
            log.append(b"shared", len(times))
            times.append(time.perf_counter() - begin)
        log.close()
        sync = one_sync(Path(directory) / "page")
        print(
            f"rewrite it between {len(times):,} appends: {sum(times):.2f} s in all, the longest "
            f"append {1000 * max(times):.1f} ms (one sync: {1000 * sync:.1f} ms)"
        )


if __name__ == "__main__":
    main()
