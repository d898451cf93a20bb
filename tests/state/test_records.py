"""The bytes of the log, against the diagram in its module's docstring."""

import re
import zlib

import pytest

from bigfib.state import records
from bigfib.state.records import BadRecord, Incomplete, NotALog, Record, UnknownVersion

SALT = b"saltsalt"
HEADER = b"\x89bigfib\n\x01\x00saltsalt"


def crc(content: bytes, start: int = 0) -> bytes:
    return zlib.crc32(content, start).to_bytes(4, "little")


class TestHeader:
    def test_is_as_drawn(self) -> None:
        assert records.encode_header(SALT) == HEADER + crc(HEADER)
        assert records.HEADER_SIZE == 22

    def test_the_seed_is_its_checksum(self) -> None:
        assert records.decode_header(HEADER + crc(HEADER)) == zlib.crc32(HEADER)

    def test_any_cut_is_incomplete(self) -> None:
        header = records.encode_header(SALT)
        for length in range(len(header)):
            with pytest.raises(Incomplete):
                records.decode_header(header[:length])

    def test_another_version(self) -> None:
        header = b"\x89bigfib\n\x02\x00saltsalt"
        with pytest.raises(UnknownVersion, match=r"version 2, .* knows only 1"):
            records.decode_header(header + crc(header))

    @pytest.mark.parametrize("content", [b"x", b"\x89PNG\r\n\x1a\n" + bytes(20), bytes(22)])
    def test_something_else(self, content: bytes) -> None:
        with pytest.raises(NotALog, match="magic"):
            records.decode_header(content)

    def test_no_bit_of_it_can_flip(self) -> None:
        header = records.encode_header(SALT)
        for bit in range(8 * len(header)):
            flipped = bytearray(header)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises((NotALog, UnknownVersion)):
                records.decode_header(bytes(flipped))


class TestRecord:
    def test_the_example_of_the_docstring(self) -> None:
        assert records.__doc__ is not None
        example = re.search(r"^    (0D .*)$", records.__doc__, re.MULTILINE)
        assert example is not None
        encoded = records.encode(b"shared", 300, durable=22, offset=22, seed=0)
        assert encoded == bytes.fromhex(example[1])

    def test_by_hand(self) -> None:
        body = b"\x07\xb1\x00\x01x\x02\x01\x00"
        encoded = records.encode(b"x", 256, durable=0, offset=5, seed=7)
        assert encoded == body + crc(body, 12)

    @pytest.mark.parametrize("sequence_id", [b"", b"shared", bytes(16), b"\xff" * 300])
    @pytest.mark.parametrize("bits", [0, 1, 7, 8, 63, 64, 8 * 126, 8 * 127, 8 * 128, 20_000])
    def test_any_size_comes_back(self, sequence_id: bytes, bits: int) -> None:
        seed, offset, durable = 0xFFFFFFFF, 2**40, 2**39 + 1
        for position in (2**bits - 1, 2**bits):
            encoded = records.encode(sequence_id, position, durable, offset, seed)
            buffer = b"before" + encoded + b"behind"
            record, after = records.decode(buffer, 6, offset, seed)
            assert record == Record(sequence_id, position, durable)
            assert buffer[after:] == b"behind"

    def test_any_cut_is_incomplete(self) -> None:
        encoded = records.encode(b"shared", 2**2000, durable=300, offset=400, seed=1)
        for length in range(len(encoded)):
            with pytest.raises(Incomplete):
                records.decode(encoded[:length], 0, 400, 1)

    def test_no_bit_of_it_can_flip(self) -> None:
        encoded = records.encode(b"shared", 300, durable=22, offset=22, seed=1)
        for bit in range(8 * len(encoded)):
            flipped = bytearray(encoded)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(BadRecord):
                records.decode(bytes(flipped) + encoded, 0, 22, 1)

    def test_is_valid_in_one_place_of_one_log_only(self) -> None:
        encoded = records.encode(b"shared", 300, durable=22, offset=22, seed=1)
        for offset, seed in ((23, 1), (40, 1), (22, 2)):
            with pytest.raises(BadRecord, match="checksum"):
                records.decode(encoded, 0, offset, seed)

    @pytest.mark.parametrize(
        ("body", "found"),
        [
            (b"", "unknown kind"),
            (b"\xb2\x00\x00\x00", "unknown kind"),
            (b"\xb1\x00\x00\x00\x00", "do not fill"),
            (b"\xb1\x00\x00\x7f", "do not fill"),
        ],
    )
    def test_other_bytes_under_a_good_checksum(self, body: bytes, found: str) -> None:
        framed = bytes([len(body)]) + body
        with pytest.raises(BadRecord, match=found):
            records.decode(framed + crc(framed, 22), 0, 22, 0)

    def test_fields_cut_off_under_a_good_checksum(self) -> None:
        framed = b"\x01\xb1"
        with pytest.raises(BadRecord):
            records.decode(framed + crc(framed, 22), 0, 22, 0)

    def test_zeros_are_no_record(self) -> None:
        for offset in range(22, 100):
            with pytest.raises(BadRecord):
                records.decode(bytes(100), 0, offset, 0x12345678)

    def test_a_length_without_end(self) -> None:
        with pytest.raises(BadRecord, match="length"):
            records.decode(b"\xff" * 100, 0, 22, 0)
