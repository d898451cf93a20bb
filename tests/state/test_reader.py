"""Reading a log while another process writes to it."""

import io
from pathlib import Path
from typing import Any

from bigfib.state import reader
from bigfib.state.log import Log

SHARED = b"shared"


class TestReadingBesideAWriter:
    def test_log_changed_between_two_pieces_is_read_again(self, path: Path) -> None:
        """A part of a failed append is read; then the writer cuts it off and goes on in its place.

        The second piece then has records that promise what the first has not.
        """
        with Log(path) as log:
            log.note(SHARED, 1)
            log.commit()
        torn = path.stat().st_size
        before = path.read_bytes()
        with Log(path) as log:
            for position in range(2, 5):
                log.note(SHARED, position)
                log.commit()
            for number in range(70_000):
                log.note(b"%d" % number, number)
            log.note(SHARED, 5)
            log.commit()
        after = path.read_bytes()
        assert len(after) > 1 << 20, "it is read in more than one piece"
        path.write_bytes(before + b"\xee" * (len(after) - torn))

        class Raced(type(path)):  # type: ignore[misc]
            """The path of a log that the writer changes after the first piece is read."""

            opened = 0

            def open(self, *_: Any, **__: Any) -> Any:
                Raced.opened += 1
                return Racing(str(self))

        class Racing(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(size)
                if size == 1 << 20:
                    path.write_bytes(after)
                return data

        contents = reader.read(Raced(path))
        assert (contents.fault, contents.position(SHARED)) == (None, 5)
        assert Raced.opened == 2
