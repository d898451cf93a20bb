"""The codec of the state log: what is encoded comes back, and what comes back was a record."""

from zlib import crc32

from bigfib.state import records
from tests.fuzz import diagram

SEED = 0xFFFF_FFF0
"""So that adding the offset passes 2^32."""


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
        # With a right length, and with a right checksum, beyond which little else ever gets.
        framed = data if what == 4 else bytes([len(data) & 0x7F]) + data
        _decoded(framed + (crc32(framed, SEED) ^ (what == 5)).to_bytes(4, "little"))


def _header(data: bytes) -> None:
    right = data[:10] == b"\x89bigfib\n\1\0" and len(data) >= 22
    right = right and crc32(data[:18]) == int.from_bytes(data[18:22], "little")
    try:
        seed = records.decode_header(data[: records.HEADER_SIZE])
    except (records.NotALog, records.UnknownVersion, records.Incomplete):
        assert not right
    else:
        assert right
        assert records.encode_header(data[10:18]) == data[:22]
        assert seed == int.from_bytes(data[18:22], "little")


def _encoded(data: bytes, position: int | None) -> None:
    sequence_id = data[: data[0] if data else 0]
    offset = len(data) * 3
    durable = (position or 0) & 0xFFFF_FFFF_FFFF
    day = durable >> 7 & records.MAX_DAY
    encoded = records.encode(sequence_id, position, records.stamp(durable, day), offset, SEED)
    record, after = records.decode(b"x" + encoded + data, 1, offset, SEED)
    assert record == (sequence_id, position, day, durable)
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
    sequence_id, position, day, durable = record
    assert expected[1:6] == (after, sequence_id, position, day, durable)
    again = records.encode(sequence_id, position, records.stamp(durable, day), 0, SEED)
    assert (again == buffer[:after]) == expected.canonical
