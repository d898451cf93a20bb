"""The rewriting of a state log: what is still true, in a new file, while the old one goes on.

A log is rewritten a slice at a time, between the appends that go on in it:

1. Slice by slice, every sequence is written to a new file beside the log, as it then stands.
2. The new file is synced. That may take long, so a thread waits for it.
3. What has changed meanwhile is written and synced, and the new file takes the log's name.

Until then the log is what it was. A crash leaves the one or the other, whole.
"""

import contextlib
import threading
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final

from bigfib.state import files, records
from bigfib.state.files import System

# Sequences written between two appends: with this many they take about as long as one sync.
_SLICE: Final = 500


def new_path(path: Path) -> Path:
    """Return where the rewritten form of the log at ``path`` is until it is finished."""
    return path.with_name(path.name + ".new")


class Rewrite:
    """A log that is being rewritten.

    Attributes:
        new_path: Where the new file is.
        fd: Its descriptor.
        seed: Where the checksums in it start from.
        end: Bytes in it.
        records: Records in it.
    """

    def __init__(
        self,
        system: System,
        path: Path,
        latest: dict[bytes, int],
        *,
        access: files.Access,
        today: int,
        oldest_day: int,
        permanent: bytes,
    ) -> None:
        """Begin.

        Args:
            system: How files are changed.
            path: The log to replace.
            latest: Position and day of each sequence, packed. It may change meanwhile, as `touch`
                is told; what is left out is taken from it too.
            access: Who may use the new file.
            today: The day that is now.
            oldest_day: Sequences last touched before this day are left out,
            permanent: except the one with this id.

        Raises:
            OSError: the new file cannot be made.
        """
        self._system = system
        self.new_path = new_path(path)
        self._latest = latest
        self._today = today
        self._oldest_day = oldest_day
        self._permanent = permanent
        self._remaining = iter(list(latest))
        self._touched: set[bytes] = set()
        self._left_out: dict[bytes, int] = {}
        self._durable = records.HEADER_SIZE
        self._sync: threading.Thread | None = None
        self._sync_error: OSError | None = None
        self.fd, self.seed = files.create(system, self.new_path, access)
        self.end = records.HEADER_SIZE
        self.records = 0

    def touch(self, sequence_id: bytes) -> None:
        """Take note that the sequence has changed since the beginning."""
        self._touched.add(sequence_id)

    def advance(self) -> bool:
        """Do a little more, and return whether only `finish` is left to do.

        Raises:
            OSError: the new file cannot be written or synced.
        """
        if self._sync is None:
            ids = list(islice(self._remaining, _SLICE))
            if ids:
                self._write(ids)
                return False
            self._sync = threading.Thread(target=self._sync_new_file, daemon=True)
            self._sync.start()
        if self._sync.is_alive():
            return False
        if self._sync_error:
            raise self._sync_error
        return True

    def finish(self) -> None:
        """Write what was touched, and make all of it durable.

        Raises:
            OSError: as `advance`.
        """
        self._durable = self.end
        self._write(self._touched)
        self._system.fdatasync(self.fd)

    def wait(self) -> None:
        """Return when there is no sync to wait for."""
        if self._sync:
            self._sync.join()

    def abandon(self) -> None:
        """Remove the new file; the log is as before."""
        self.wait()
        for sequence_id, packed in self._left_out.items():
            if sequence_id not in self._touched:
                self._latest[sequence_id] = packed
        with contextlib.suppress(OSError):
            self._system.close(self.fd)
            self._system.unlink(self.new_path)

    def _write(self, ids: Iterable[bytes]) -> None:
        """Write where these sequences are, in one piece."""
        pieces = []
        offset = self.end
        for sequence_id in ids:
            packed = self._latest.get(sequence_id)
            if packed is None:
                # It may have been written when it still was.
                position, day = None, self._today
            else:
                position, day = records.unpack(packed)
                if day < self._oldest_day and sequence_id != self._permanent:
                    self._left_out[sequence_id] = self._latest.pop(sequence_id)
                    continue
            stamp = records.stamp(self._durable, day)
            piece = records.encode(sequence_id, position, stamp, offset, self.seed)
            pieces.append(piece)
            offset += len(piece)
        files.write(self._system, self.fd, b"".join(pieces), self.end)
        self.end = offset
        self.records += len(pieces)

    def _sync_new_file(self) -> None:
        try:
            self._system.fdatasync(self.fd)
        except OSError as error:
            self._sync_error = error
