"""The bytes of replies."""

from pathlib import Path
from threading import Event

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
            status, headers, body = reply.now("409 Conflict", rest)
            whole = b"".join(body)
        assert status == "409 Conflict"
        assert whole == b'{"value":"' + b"7" * digits + b'","status":"409"}'
        assert dict(headers)["Content-Length"] == str(len(whole))


class TestCommonHeaders:
    def test_date_is_renewed_with_the_next_second(self) -> None:
        now = 784111777.25
        common = CommonHeaders(lambda: False, clock=lambda: now)
        # This is the example in RFC 9110.
        assert common.of({}, 1000.0) == [("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]
        now += 0.75
        assert common.of({}, 1000.7) == [("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]
        assert common.of({}, 1000.75) == [("Date", "Sun, 06 Nov 1994 08:49:38 GMT")]
        now += 1
        assert common.of({}, 1001.7) == [("Date", "Sun, 06 Nov 1994 08:49:38 GMT")]
        assert common.of({}, 1001.75) == [("Date", "Sun, 06 Nov 1994 08:49:39 GMT")]

    def test_connection_closes_from_the_moment_of_draining(self) -> None:
        draining = Event()
        common = CommonHeaders(draining.is_set)
        assert ("Connection", "close") not in common.of({}, 1000.0)
        draining.set()
        assert ("Connection", "close") in common.of({}, 1000.0)

    def test_ids_of_a_request_are_in_its_reply_alone(self) -> None:
        common = CommonHeaders(lambda: False)
        assert ("X-Request-Id", "mine") in common.of({"HTTP_X_REQUEST_ID": "mine"}, 1000.0)
        assert [name for name, _ in common.of({}, 1000.0)] == ["Date"]
