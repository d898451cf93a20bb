"""The bytes of the log, compared with the diagram in the docstring of its module."""

import random
import re
import zlib

import pytest

from bigfib.state import header, records
from bigfib.state.header import NotALog, UnknownVersion
from bigfib.state.packed import unpack
from bigfib.state.records import BadRecord, Incomplete, Record

SALT = b"salt"
HEADER = b"\x89bigfib\n\x02\x00salt\x07\x00\x00\x00"
OLD_HEADER = b"\x89bigfib\n\x01\x00saltsalt"


def crc(content: bytes, start: int = 0) -> bytes:
    return zlib.crc32(content, start).to_bytes(4, "little")


class TestHeader:
    def test_header_is_as_drawn(self) -> None:
        assert header.encode(SALT, 7) == HEADER + crc(HEADER)
        assert header.SIZE == 22

    def test_seed_of_a_log_is_the_checksum_of_its_header(self) -> None:
        assert header.decode(HEADER + crc(HEADER)) == (zlib.crc32(HEADER), 7, False)

    def test_header_of_the_old_format_is_read(self) -> None:
        assert header.decode(OLD_HEADER + crc(OLD_HEADER)) == (zlib.crc32(OLD_HEADER), 0, True)

    def test_header_cut_anywhere_is_incomplete(self) -> None:
        encoded_header = header.encode(SALT, 7)
        for length in range(len(encoded_header)):
            with pytest.raises(Incomplete):
                header.decode(encoded_header[:length])

    def test_header_of_another_version_is_refused_by_number(self) -> None:
        other = b"\x89bigfib\n\x03\x00saltsalt"
        with pytest.raises(UnknownVersion, match=r"version 3, .* knows only 1 and 2"):
            header.decode(other + crc(other))

    @pytest.mark.parametrize("content", [b"x", b"\x89PNG\r\n\x1a\n" + bytes(20), bytes(22)])
    def test_header_without_magic_bytes_is_not_a_log(self, content: bytes) -> None:
        with pytest.raises(NotALog, match="magic"):
            header.decode(content)

    def test_no_bit_of_it_can_flip(self) -> None:
        encoded_header = header.encode(SALT, 7)
        for bit in range(8 * len(encoded_header)):
            flipped = bytearray(encoded_header)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises((NotALog, UnknownVersion)):
                header.decode(bytes(flipped))


class TestRecord:
    def test_the_example_of_the_docstring(self) -> None:
        assert records.__doc__ is not None
        example = re.search(r"^    (1\w  B3 .*)$", records.__doc__, re.MULTILINE)
        assert example is not None
        encoded = records.encode(b"shared", 300, 301, records.stamp(22, 20_000), offset=22, seed=0)
        assert encoded == bytes.fromhex(example[1])

    def test_record_encoded_by_hand_is_the_same(self) -> None:
        # With 200 changes, when 128 bytes were durable.
        body = b"\x0c\xb3\x80\x01\x01\x07\xc8\x01\x01x\x02\x01\x00"
        encoded = records.encode(b"x", 256, 200, records.stamp(128, 7), offset=5, seed=7)
        assert encoded == body + crc(body, 12)

    def test_record_of_the_old_format_encoded_by_hand_is_the_same(self) -> None:
        body = b"\x09\xb1\x00\x01\x07\x01x\x02\x01\x00"
        stamp = records.stamp(0, 7, is_old=True)
        encoded = records.encode(b"x", 256, 0, stamp, offset=5, seed=7)
        assert encoded == body + crc(body, 12)

    def test_removal_encoded_by_hand_is_the_same(self) -> None:
        for is_old, body in (
            (False, b"\x05\xb4\x05\x00\x01x"),
            (True, b"\x06\xb2\x01\x05\x00\x01x"),
        ):
            stamp = records.stamp(5, 0, is_old=is_old)
            encoded = records.encode(b"x", None, not is_old, stamp, offset=5, seed=7)
            assert encoded == body + crc(body, 12)
            assert records.decode(encoded, 0, 5, 7) == (Record(b"x", None, 0, 0, 5), len(encoded))

    @pytest.mark.parametrize("sequence_id", [b"", b"shared", bytes(16), b"\xff" * 300])
    @pytest.mark.parametrize("bits", [0, 1, 7, 8, 63, 64, 8 * 126, 8 * 127, 8 * 128, 20_000])
    def test_record_of_any_size_is_decoded(self, sequence_id: bytes, bits: int) -> None:
        seed, offset, durable = 0xFFFFFFFF, 2**40, 2**39 + 1
        for position, version in ((2**bits - 1, 0), (2**bits, 1), (2**bits, 127), (7, 2**63 - 1)):
            stamp = records.stamp(durable, 20_000, is_old=not version)
            encoded = records.encode(sequence_id, position, version, stamp, offset, seed)
            buffer = b"before" + encoded + b"behind"
            record, after = records.decode(buffer, 6, offset, seed)
            assert record == Record(sequence_id, position, version, 20_000, durable)
            assert buffer[after:] == b"behind"

    def test_record_cut_anywhere_is_incomplete(self) -> None:
        encoded = records.encode(b"shared", 2**2000, 9, records.stamp(300, 9), offset=400, seed=1)
        for length in range(len(encoded)):
            with pytest.raises(Incomplete):
                records.decode(encoded[:length], 0, 400, 1)

    def test_no_bit_of_it_can_flip(self) -> None:
        encoded = records.encode(b"shared", 300, 301, records.stamp(22, 20_000), offset=22, seed=1)
        for bit in range(8 * len(encoded)):
            flipped = bytearray(encoded)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(BadRecord):
                records.decode(bytes(flipped) + encoded, 0, 22, 1)

    def test_is_valid_in_one_place_of_one_log_only(self) -> None:
        encoded = records.encode(b"shared", 300, 301, records.stamp(22, 20_000), offset=22, seed=1)
        for offset, seed in ((23, 1), (40, 1), (22, 2)):
            with pytest.raises(BadRecord, match="checksum"):
                records.decode(encoded, 0, offset, seed)

    @pytest.mark.parametrize(
        ("body", "found"),
        [
            (b"", "not a record"),
            (b"\xb5\x00\x00\x00\x00", "not a record"),
            (b"\xb3\x00\x00\x01\x00\x00\x00", "do not fill"),
            (b"\xb4\x00\x00\x00\x00", "do not fill"),
            (b"\xb3\x00\x00\x01\x7f", "longer than its record"),
            (b"\xb1\x00\x00\x00\x00\x00", "do not fill"),
            (b"\xb2\x00\x00\x00\x00", "do not fill"),
            (b"\xb1\x00\x00\x00\x7f", "longer than its record"),
            (b"\xb1\x7f", "longer than its record"),
            (b"\xb1", "longer than its record"),
        ],
    )
    def test_other_bytes_under_a_good_checksum(self, body: bytes, found: str) -> None:
        framed = bytes([len(body)]) + body
        with pytest.raises(BadRecord, match=found):
            records.decode(framed + crc(framed, 22), 0, 22, 0)

    def test_zeros_are_no_record(self) -> None:
        for offset in range(22, 100):
            with pytest.raises(BadRecord):
                records.decode(bytes(100), 0, offset, 0x12345678)

    def test_length_without_end_is_refused(self) -> None:
        with pytest.raises(BadRecord, match="length"):
            records.decode(b"\xff" * 100, 0, 22, 0)


class TestReplay:
    SEED = 99
    IS_OLD = False

    def log(self, *entries: tuple[bytes, int | None, int]) -> bytes:
        """Return the records of a log that begins at offset 1000."""
        log = b""
        for sequence_id, position, day in entries:
            # One change more than it has positions.
            version = 0 if self.IS_OLD else (position or 0) % 2**40 + 1
            stamp = records.stamp(22, day, is_old=self.IS_OLD)
            log += records.encode(sequence_id, position, version, stamp, 1000 + len(log), self.SEED)
        return log

    def test_replay_applies_records_of_the_usual_size(self) -> None:
        log = self.log((b"a", 0, 1), (b"b", 2**63, 20_000), (b"a", 7, 2))
        latest: dict[bytes, int] = {}
        assert records.replay(b"xx" + log, 2, 1000, self.SEED, latest) == (2 + len(log), 3)
        assert {name: unpack(packed) for name, packed in latest.items()} == {
            b"a": (7, 2 if self.IS_OLD else 8, 2),
            b"b": (2**63, 1, 20_000),
        }

    @pytest.mark.parametrize("other", [(b"a", None, 5), (b"a", 2**2000, 5), (b"x" * 200, 5, 5)])
    def test_replay_stops_at_a_record_of_another_size(
        self, other: tuple[bytes, int | None, int]
    ) -> None:
        first = self.log((b"a", 1, 5))
        log = self.log((b"a", 1, 5), other, (b"a", 2, 5))
        latest: dict[bytes, int] = {}
        assert records.replay(log, 0, 1000, self.SEED, latest) == (len(first), 1)

    def test_replay_stops_at_any_flipped_bit_or_cut(self) -> None:
        first = self.log((b"a", 1, 5))
        log = self.log((b"a", 1, 5), (b"shared", 300, 20_000))
        for bit in range(8 * len(first), 8 * len(log)):
            flipped = bytearray(log)
            flipped[bit // 8] ^= 1 << bit % 8
            assert records.replay(bytes(flipped), 0, 1000, self.SEED, {}) == (len(first), 1)
        for length in range(len(first), len(log)):
            assert records.replay(log[:length], 0, 1000, self.SEED, {}) == (len(first), 1)

    def test_a_checksum_that_ends_in_zeros_is_not_complete_without_them(self) -> None:
        ending = [log for log in map(self.step, range(2000)) if log.endswith(b"\0")]
        assert ending
        for log in ending:
            assert records.replay(log, 0, 1000, self.SEED, {}) == (len(log), 1)
            assert records.replay(log[:-1], 0, 1000, self.SEED, {}) == (0, 0)

    def step(self, position: int) -> bytes:
        return self.log((b"shared", position, 20_000))


class TestReplayOfTheOldFormat(TestReplay):
    """In this format each record counts as one change."""

    IS_OLD = True


class TestSearch:
    def test_search_finds_records_anywhere_in_noise(self) -> None:
        noise = random.Random(5)
        expected = []
        buffer = b""
        for number in range(200):
            buffer += noise.randbytes(noise.randrange(300))
            position = noise.choice([None, number, 2 ** (8 * noise.randrange(40_000))])
            encoded = records.encode(
                b"%d" % number, position, 5, records.stamp(22, 1), 500 + len(buffer), 7
            )
            record = Record(b"%d" % number, position, 5 if position is not None else 0, 1, 22)
            expected.append((len(buffer), record, len(buffer) + len(encoded)))
            buffer += encoded
        assert list(records.search(buffer, 500, 7)) == expected
        assert list(records.search(buffer, 501, 7)) == []
        assert list(records.search(buffer, 500, 8)) == []

    def test_a_kind_byte_inside_a_record_is_not_another(self) -> None:
        encoded = records.encode(b"\x03\xb3\x00\x00" * 20, 5, 1, records.stamp(22, 1), 22, 7)
        assert [start for start, _, _ in records.search(encoded, 22, 7)] == [0]
