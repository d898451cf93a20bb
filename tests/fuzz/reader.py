"""The reader of harmed state logs reads exactly the records that the diagram has."""

import io

from bigfib.state import header, records
from bigfib.state.packed import MAX_DAY, pack
from bigfib.state.reader import Reader, search
from tests.fuzz import diagram

HEADER = header.encode(b"salt", 0)
SEED = int.from_bytes(HEADER[18:], "little")


def check(data: bytes) -> None:
    # Few records: many kinds of harm to a short log show more than few to a long one.
    at = data[0] & 0xF if data else 0
    log = _harmed(_written(data[1 : 1 + at]), data[1 + at : 32])
    before = diagram.read_on(log, len(HEADER), SEED)
    end = before[-1].end if before else len(HEADER)

    reader = Reader(io.BytesIO(log))
    read = [(offset, *record) for offset, record in reader]
    assert read == [(drawn.start, *drawn[2:7]) for drawn in before]
    assert reader.end == end
    behind = diagram.search(log, end, SEED)
    proofs = [drawn.start for drawn in behind if drawn.durable > end]
    if end == len(log):
        assert reader.fault is None
    else:
        assert reader.fault is not None
        assert reader.fault.offset == end
        assert reader.fault.proven_by == (proofs[0] if proofs else None)
        assert reader.fault.later == bool(behind)

    replaying = Reader(io.BytesIO(log))
    latest: dict[bytes, int] = {}
    assert replaying.replay(latest) == len(before)
    assert (replaying.end, replaying.fault) == (end, reader.fault)
    expected: dict[bytes, int] = {}
    for drawn in before:
        if drawn.position is None:
            expected.pop(drawn.sequence_id, None)
        else:
            expected[drawn.sequence_id] = pack(drawn.position, drawn.version, drawn.day)
    assert latest == expected

    # The records that a repair saves.
    saved = [(start, *record, after) for start, record, after in search(io.BytesIO(log), 0, SEED)]
    assert saved == [(drawn.start, *drawn[2:7], drawn.end) for drawn in before + behind]


def _written(commands: bytes) -> bytes:
    """Return a log in which each two bytes of input have written a record."""
    log = HEADER
    durable = 0
    for name, what in zip(commands[::2], commands[1::2], strict=False):
        if what & 1:
            durable = len(log)
        position = None if what & 6 == 6 else what << (what & 7) * 40
        stamp = records.stamp(durable, what & MAX_DAY)
        version = name * what + 1
        log += records.encode(b"i" * (name & 0x9F), position, version, stamp, len(log), SEED)
    return log


def _harmed(log: bytes, commands: bytes) -> bytes:
    """Return the log, in which each three bytes of input harm one place after the header."""
    harmed = bytearray(log)
    for how, where, what in zip(commands[::3], commands[1::3], commands[2::3], strict=False):
        at = max(len(harmed) - (where | (how >> 3) << 8), len(HEADER))
        if how & 7 == 0:
            del harmed[at:]
        elif how & 7 == 1:
            harmed[at:at] = bytes(what & 0x1F)
        elif how & 7 == 2:
            del harmed[at : at + (what & 0x1F)]
        elif how & 7 == 3:
            harmed[at : at + (what & 0x1F)] = bytes(what & 0x1F)
        elif how & 7 == 4:
            harmed += bytes([what])
        elif at < len(harmed):
            harmed[at] ^= what
    return bytes(harmed)
