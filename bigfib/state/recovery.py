"""Decide whether a state log is opened, truncated or refused. Pure: no files, no clock.

`CASES` is the whole decision: a row for each case, with the decision and its reason. The first row
that fits counts. `docs/durability.md` has the same table for operators, and a test creates each
case.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from bigfib.state import header as headers
from bigfib.state.errors import Damaged, Unreadable, Unusable
from bigfib.state.floor import NO_BOOT, Floor, path_of
from bigfib.state.header import Header, NotALog, UnknownVersion


class Decision(str, Enum):
    """What opening for writing does with a log; readers refuse the same logs."""

    CREATE = "create it"
    OPEN = "open it"
    CUT = "cut off the end, and keep it in another file"
    REPAIR = "refuse it; `log repair` saves what can be read"
    REFUSE = "refuse it"


@dataclass(frozen=True)
class Fault:
    """A place in a log where there should be a record.

    Attributes:
        offset: Its offset.
        found: What is there instead.
        proven_by: Offset of a later record that proves this range was synced, or None.
        later: Whether there is any valid record after it.
    """

    offset: int
    found: str
    proven_by: int | None = None
    later: bool = False

    def __str__(self) -> str:
        text = f"at offset {self.offset} there is {self.found}"
        if self.proven_by is not None:
            text += f"; the record at offset {self.proven_by} proves that this place was synced"
        return text


@dataclass(frozen=True)
class Found:
    """What is at the path of a log.

    Attributes:
        size: Size of the file; None if there is none.
        header: Its header; None if it has none.
        problem: Why it cannot be read as a log; None if it can.
        end: Offset after the last record before a fault.
        fault: The fault at ``end``; None if the file ends there.
        floor: The floor next to it; None if there is none.
        floor_is_harmed: Whether the file of the floor is not a valid floor.
        boot: The id of this boot of the machine.
    """

    size: int | None = None
    header: Header | None = None
    problem: Exception | None = None
    end: int = 0
    fault: Fault | None = None
    floor: Floor | None = None
    floor_is_harmed: bool = False
    boot: bytes = NO_BOOT

    @property
    def promised(self) -> int:
        """The offset up to which the log of the floor must be whole; 0 if no record precedes it."""
        if not self.floor:
            return 0
        same_boot = self.floor.boot == self.boot != NO_BOOT
        promised = self.floor.written if same_boot else self.floor.durable
        return promised if promised > headers.SIZE else 0

    @property
    def has_its_floor(self) -> bool:
        """Whether the floor belongs to this log."""
        return bool(self.floor and self.header and self.floor.seed == self.header.seed)

    @property
    def has_floor_of_another(self) -> bool:
        """Whether the floor promises records of a log that this one has not replaced."""
        return bool(
            self.floor
            and self.header
            and self.promised
            and self.floor.seed not in (self.header.seed, self.header.previous)
        )

    @property
    def is_old(self) -> bool:
        """Whether the log is of the old format."""
        return bool(self.header and self.header.is_old)

    @property
    def is_below_promise(self) -> bool:
        """Whether records are missing that were promised."""
        return self.has_its_floor and self.end < self.promised

    @property
    def is_below_written(self) -> bool:
        """Whether records are missing that were promised until the next boot."""
        return bool(self.floor and self.has_its_floor and self.end < self.floor.written)

    @property
    def case(self) -> "Case":
        """The first case that fits."""
        return next(case for case in CASES if case.fits(self))

    def message(self, log: Path) -> str:
        """Return the message about the case, without the log's name; empty if there is none."""
        return self.case.says.format(self, floor=path_of(log))

    def refuse(self, log: Path) -> None:
        """Raise an exception if the log must not be opened.

        Args:
            log: The path to name in the error.

        Raises:
            Damaged: a repair may help.
            Unusable: a repair cannot help.
            Unreadable: the disk fails to read it.
        """
        if isinstance(self.problem, Unreadable):
            raise self.problem
        if self.case.decision is Decision.REPAIR:
            raise Damaged(log, self.message(log))
        if self.case.decision is Decision.REFUSE:
            raise Unusable(log, self.message(log)) from self.problem


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: The case.
        fits: Whether it is this case, provided that no earlier row fits.
        decision: What is done.
        reason: Why.
        says: The message, a format string for `Found` and its floor's path; may be empty.
    """

    name: str
    fits: Callable[[Found], object]
    decision: Decision
    reason: str
    says: str = ""


_RESTORED: Final = "if it was put there on purpose, remove {floor}"

CASES: Final = (
    Case(
        "no file, and no floor of a log with records",
        lambda found: found.size is None and not found.promised,
        Decision.CREATE,
        "Nothing was ever promised here.",
    ),
    Case(
        "no file, but the floor of a log with records",
        lambda found: found.size is None,
        Decision.REFUSE,
        "The log is gone. Starting at 0 would silently lose all positions.",
        "it is gone, and was on disk up to offset {0.promised}; put it or a copy back in place, or "
        "remove {floor} to start at position 0",
    ),
    Case(
        "bytes that the disk cannot read",
        lambda found: isinstance(found.problem, Unreadable),
        Decision.REPAIR,
        "Its content is unknown.",
        "{0.problem}",
    ),
    Case(
        "another format version",
        lambda found: isinstance(found.problem, UnknownVersion),
        Decision.REFUSE,
        "A newer program wrote it.",
        "{0.problem}",
    ),
    Case(
        "another file, or a harmed header",
        lambda found: isinstance(found.problem, NotALog),
        Decision.REFUSE,
        "It must not be overwritten. `log repair` finds out whether only the header is harmed.",
        "{0.problem}",
    ),
    Case(
        "a header cut short, or an empty file",
        lambda found: found.header is None,
        Decision.REFUSE,
        "No crash leaves this: a log gets its name after its header is on disk.",
        "it has {0.size} bytes, less than a header, which no crash leaves; put a copy of the log "
        "in its place, or remove it and {floor} to start at position 0",
    ),
    Case(
        "the floor of another log",
        lambda found: found.has_floor_of_another and not found.is_old,
        Decision.REFUSE,
        "It is a copy from before a compaction, or another log. Steps acknowledged since are "
        "missing.",
        "it is not the log that was here last, to which {floor} belongs; " + _RESTORED,
    ),
    Case(
        "harmed below the floor",
        lambda found: found.is_below_promise and found.fault,
        Decision.REPAIR,
        "Acknowledged steps are missing.",
        "{0.fault}, and it was whole up to offset {0.promised}",
    ),
    Case(
        "ends below the floor: an older copy, or cut at a record",
        lambda found: found.is_below_promise,
        Decision.REPAIR,
        "Acknowledged steps are missing.",
        "it ends at offset {0.end}, and was whole up to offset {0.promised}; " + _RESTORED,
    ),
    Case(
        "a fault where a later record proves that the log was synced",
        lambda found: found.fault and found.fault.proven_by is not None,
        Decision.REPAIR,
        "Acknowledged steps are missing; this is certain even without a floor.",
        "{0.fault}",
    ),
    Case(
        "a fault below what `--durability os` wrote before the machine was restarted",
        lambda found: found.is_below_written and found.fault,
        Decision.CUT,
        "Its steps were promised only until the machine stops.",
        "{0.fault}; with --durability os, what was written before the machine stopped is lost",
    ),
    Case(
        "ends below what `--durability os` wrote before the machine was restarted",
        lambda found: found.is_below_written,
        Decision.OPEN,
        "Its steps were promised only until the machine stops.",
        "it ends at offset {0.end}; with --durability os, what was written after that before the "
        "machine stopped is lost",
    ),
    Case(
        "a fault, with valid records after it",
        lambda found: found.fault and found.fault.later,
        Decision.CUT,
        "A power failure may keep a later part of a write and lose an earlier one. No record "
        "proves that a sync came between.",
        "{0.fault}, with valid records after it",
    ),
    Case(
        "a torn end",
        lambda found: found.fault,
        Decision.CUT,
        "A crash cut short a write that was never acknowledged.",
        "{0.fault}",
    ),
    Case(
        "whole, with a floor that cannot be read",
        lambda found: found.floor_is_harmed,
        Decision.OPEN,
        "A floor is overwritten in place, so a power failure may tear it. It is written again.",
        "{floor} is harmed and ignored",
    ),
    Case(
        "whole, of the old format, with the floor of another log",
        lambda found: found.has_floor_of_another,
        Decision.OPEN,
        "An older program, which keeps no floor, has compacted it.",
        "the floor next to it belongs to another log, and is ignored",
    ),
    Case(
        "whole, without a floor",
        lambda found: not found.floor,
        Decision.OPEN,
        "It is an older log, or a copy. It gets a floor.",
    ),
    Case(
        "whole, with the floor of the log that it replaced, or of one without records",
        lambda found: not found.has_its_floor,
        Decision.OPEN,
        "A crash came after the log was renamed and before the floor was written, or `log repair` "
        "made it.",
    ),
    Case(
        "whole, with its floor",
        lambda _found: True,
        Decision.OPEN,
        "Nothing is missing.",
    ),
)
