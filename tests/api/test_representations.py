"""The bytes of replies."""

import time
from pathlib import Path

import pytest

from bigfib.api.commit import Committer
from bigfib.api.representations import CommonHeaders, ValueReply, closing
from bigfib.state.log import Durability, Log


class TestValueReply:
    @pytest.mark.parametrize("by_iterations", [True, False])
    @pytest.mark.parametrize("durability", Durability)
    @pytest.mark.parametrize("digits", [1, 1000, 65_500, 65_536, 300_000])
    def test_pieces_of_a_reply_add_up_to_its_body(
        self, path: Path, durability: Durability, digits: int, by_iterations: bool
    ) -> None:
        rest = b"7" * digits + closing("409 Conflict")
        with Log(path, durability) as log:
            committer = Committer(log)
            if by_iterations:
                committer.end_iteration()
            log.note(b"a", 7)
            reply = ValueReply(committer)
            status, headers, body = reply("409 Conflict", rest)
            whole = b"".join(body)
        assert status == "409 Conflict"
        assert whole == b'{"value":"' + b"7" * digits + b'","status":"409"}'
        assert dict(headers)["Content-Length"] == str(len(whole))


class TestCommonHeaders:
    def test_is_due_with_the_next_second(self) -> None:
        now = 784111777.25
        before = time.perf_counter()
        common = CommonHeaders(clock=lambda: now)
        # This is the example in RFC 9110.
        assert common.headers == [("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]
        assert before + 0.75 <= common.due <= time.perf_counter() + 0.75
        now += 0.75
        common.renew(1000.0)
        assert common.headers == [("Date", "Sun, 06 Nov 1994 08:49:38 GMT")]
        assert common.due == 1001.0
