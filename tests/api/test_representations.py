"""When the bytes of a reply may leave."""

import os
import time
from pathlib import Path

import pytest

from bigfib.api.representations import CommittedReply, DateHeader, closing
from bigfib.state.log import Durability, Log

REST = b'13","status":"200"}'
WHOLE = b'{"value":"' + REST


class TestCommittedReply:
    def test_digits_come_after_the_sync(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        syncs = 0
        real = os.fdatasync

        def fdatasync(fd: int) -> None:
            nonlocal syncs
            real(fd)
            syncs += 1

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        with Log(path) as log:
            reply = CommittedReply(log, DateHeader())
            # Two that wait at the same time: the first syncs for both.
            bodies = [reply("200 OK", REST, log.append(b"a", position))[2] for position in (1, 2)]
            chunks = [iter(body) for body in bodies]
            openings = [next(chunk) for chunk in chunks]
            assert openings == [b'{"value":"'] * 2, "this much says nothing"
            assert syncs == 0
            rest = next(chunks[0])
            assert syncs == 1
            assert openings[0] + rest == WHOLE
            assert openings[1] + b"".join(chunks[1]) == WHOLE
            assert syncs == 1

    def test_what_is_durable_leaves_at_once(self, path: Path) -> None:
        with Log(path, Durability.OS) as log:
            lsn = log.append(b"a", 7)
            status, headers, body = CommittedReply(log, DateHeader())("200 OK", REST, lsn)
        assert status == "200 OK"
        assert ("Content-Length", str(len(WHOLE))) in headers
        assert list(body) == [WHOLE]

    @pytest.mark.parametrize("durability", Durability)
    @pytest.mark.parametrize("digits", [1, 1000, 65_500, 65_536, 300_000])
    def test_the_parts_are_the_whole(self, path: Path, durability: Durability, digits: int) -> None:
        rest = b"7" * digits + closing("409 Conflict")
        with Log(path, durability) as log:
            lsn = log.append(b"a", 7)
            _, headers, body = CommittedReply(log, DateHeader())("409 Conflict", rest, lsn)
            whole = b"".join(body)
        assert whole == b'{"value":"' + b"7" * digits + b'","status":"409"}'
        assert dict(headers)["Content-Length"] == str(len(whole))


class TestDateHeader:
    def test_is_due_with_the_next_second(self) -> None:
        now = 784111777.25
        before = time.perf_counter()
        date = DateHeader(clock=lambda: now)
        # RFC 9110 has this one as its example.
        assert date.header == ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
        assert before + 0.75 <= date.due <= time.perf_counter() + 0.75
        now += 0.75
        date.renew(1000.0)
        assert date.header == ("Date", "Sun, 06 Nov 1994 08:49:38 GMT")
        assert date.due == 1001.0
