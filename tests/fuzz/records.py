"""The codec of the state log: encoding and decoding are inverse, and nothing else decodes."""

from zlib import crc32

from bigfib.state import header, records
from bigfib.state.packed import MAX_DAY
from tests.fuzz import diagram

SEED = 0xFFFF_FFF0
"""So that adding the offset exceeds 2^32."""


def check(data: bytes) -> None:
    what = data[0] & 7 if data else 0
    data = data[1:]
    if what == 0:
        _header(data)
    elif what == 1:
        _encoded(data, None)
    elif what == 2:
        _encoded(data, int.from_bytes(data[1:], "big"))
    elif what == 3:
        _decoded(data)
    else:
        # With a correct length and a correct checksum, without which inputs seldom get far.
        framed = data if what == 4 else bytes([len(data) & 0x7F]) + data
        _decoded(framed + (crc32(framed, SEED) ^ (what == 5)).to_bytes(4, "little"))


def _header(data: bytes) -> None:
    right = data[:10] in (b"\x89bigfib\n\1\0", b"\x89bigfib\n\2\0") and len(data) >= 22
    right = right and crc32(data[:18]) == int.from_bytes(data[18:22], "little")
    try:
        found = header.decode(data[: header.SIZE])
    except (header.NotALog, header.UnknownVersion, records.Incomplete):
        assert not right
    else:
        assert right
        if not found.is_old:
            assert header.encode(data[10:14], found.previous) == data[:22]
        assert found.is_old == (data[8] == 1)
        assert found.seed == int.from_bytes(data[18:22], "little")


def _encoded(data: bytes, position: int | None) -> None:
    sequence_id = data[: data[0] if data else 0]
    offset = len(data) * 3
    durable = (position or 0) & 0xFFFF_FFFF_FFFF
    day = durable >> 7 & MAX_DAY
    # 0 in the old format; also the shortest and the longest count.
    version = (0, 1, durable % 300 + 1, 2**63 - 1)[durable & 3]
    stamp = records.stamp(durable, day, is_old=not version)
    encoded = records.encode(sequence_id, position, version, stamp, offset, SEED)
    record, after = records.decode(b"x" + encoded + data, 1, offset, SEED)
    assert record[:2] == (sequence_id, position)
    assert record[2:] == (0 if position is None else version, day, durable)
    assert after == 1 + len(encoded)


def _decoded(buffer: bytes) -> None:
    try:
        expected = diagram.read(buffer, 0, SEED)
    except diagram.NoRecord:
        expected = None
    try:
        record, after = records.decode(buffer, 0, 0, SEED)
    except records.BadRecord:
        assert expected is None
        return
    assert expected is not None
    sequence_id, position, version, day, durable = record
    assert expected[1:7] == (after, *record)
    again = {
        records.encode(
            *(sequence_id, position, version or not is_old),
            records.stamp(durable, day, is_old=is_old),
            *(0, SEED),
        )
        for is_old in (False, True)
        if not (is_old and version)
    }
    assert (buffer[:after] in again) == expected.canonical
