"""Sequences at positions of large terms."""

import json
import secrets
import signal
import subprocess
import sys
from http.client import HTTPResponse
from pathlib import Path

from bigfib.numbers import kernel
from bigfib.state.log import Log
from bigfib.terms import INLINE_LIMIT
from tests.api.large_terms import LONG, PUT, expected, files, workers
from tests.api.sequences import tagged
from tests.service import Serve, Service, until

# The first position whose terms are not computed inline.
POSITION = INLINE_LIMIT + 1


class TestSequences:
    @staticmethod
    def put(service: Service, position: int) -> tuple[HTTPResponse, bytes]:
        body = json.dumps({"position": str(position)}).encode()
        return service.ask("/api1/sequences/shared", "PUT", PUT, body)

    def put_at_last(self, service: Service, position: int) -> bytes:
        until(lambda: self.put(service, position)[0].status != 503)
        reply, body = self.put(service, position)
        assert reply.status == 200
        return body

    def test_put_to_a_large_term_is_503_until_the_term_is_ready(self, serve: Serve) -> None:
        service = serve()
        n = 1_234_567
        reply, body = self.put(service, n)
        assert reply.status == 503
        assert "Nothing has changed" in json.loads(body)["detail"]
        assert reply.headers["Link"] == f'</api1/terms/{n}/job>; rel="monitor"'
        assert tagged(service.ask("/api1/sequences/shared")[0]) == 0
        document = json.loads(self.put_at_last(service, n))
        assert (document["position"], document["value"].encode()) == (str(n), expected(n))
        # And by steps from there.
        value = b'{"value":"%b","status":"200"}'
        assert service.ask("/api0/next")[1] == value % expected(n + 1)
        assert service.ask("/api0/next")[1] == value % expected(n + 2)
        for back in (1, 0, -1):
            assert service.ask("/api0/previous")[1] == value % expected(n + back)
        assert len(files(service)) == 2

    def test_put_beyond_the_largest_term_is_422_and_a_step_goes_on(self, serve: Serve) -> None:
        service = serve("--max-term", "1500000")
        reply, body = self.put(service, 1_500_001)
        assert reply.status == 422
        assert "position 1500000 at most" in json.loads(body)["detail"]
        assert self.put_at_last(service, 1_500_000)
        service.ask("/api0/next")
        service.stop(signal.SIGTERM)
        assert serve("--max-term", "1500000").start_position == 1_500_001

    def test_large_term_without_room_on_disk_leaves_the_sequence_movable(
        self, serve: Serve, path: Path
    ) -> None:
        """The sequence was stepped there, and its terms are no longer in memory."""
        with Log(path) as log:
            log.note(b"shared", POSITION - 1)
        service = serve("--cache-bytes", "1", "--disk-cache-bytes", "400000")
        assert service.ask("/api0/next")[0].status == 200
        service.ask("/api1/sequences", "POST")
        reply, body = service.ask("/api0/current")
        assert (reply.status, body) == (503, b'{"value":"-3","status":"503"}')
        reply, body = service.ask("/api1/sequences/shared")
        assert reply.status == 422
        assert "the service keeps 400000 at most" in json.loads(body)["detail"]
        # The sequence is not stuck: it can be moved elsewhere.
        assert self.put(service, 7)[1] == (
            b'{"id":"shared","position":"7","digits":"2","value":"13"}'
        )

    def test_a_service_with_no_room_for_it_does_not_start(self, path: Path) -> None:
        with Log(path) as log:
            log.note(b"shared", POSITION)
        command = ["serve", "-p", "0", "-f", str(path), "--disk-cache-bytes", "400000"]
        done = subprocess.run(
            [sys.executable, "-m", "bigfib", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "417976 digits, and the service keeps 400000 at most" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_position_whose_terms_exceed_the_cache_is_refused(self, serve: Serve) -> None:
        # The numbers of 1,250,000 digits that a pair holds.
        service = serve("--cache-bytes", "2500000" if kernel.load() else "7500000")
        limit = 5_981_214
        reply, body = self.put(service, limit + 1)
        assert reply.status == 422
        assert f"position {limit} at most" in json.loads(body)["detail"]
        document = json.loads(self.put_at_last(service, limit))
        assert document["digits"] == "1250000"

    def test_service_at_a_large_term_listens_at_once(self, serve: Serve, path: Path) -> None:
        """The service listens at once, and starts to compute the term before a client asks."""
        with Log(path) as log:
            log.note(b"shared", LONG)
        service = serve()
        assert service.start_position == LONG
        assert len(workers(service)) == 2
        assert service.ask("/api0/current")[1] == b'{"value":"-3","status":"503"}'

    def test_to_leave_a_large_position_needs_no_term(self, serve: Serve, path: Path) -> None:
        left, deleted = secrets.token_bytes(16), secrets.token_bytes(16)
        with Log(path) as log:
            log.note(left, LONG)
            log.note(deleted, LONG)
        service = serve()
        address = f"/api1/sequences/{left.hex()}"
        stale, right = {"If-Match": '"7"'}, {"If-Match": f'"{LONG}"'}
        body = b'{"position":"7"}'
        assert service.ask(address, "PUT", PUT | stale, body)[0].status == 412
        assert service.ask(address, "PUT", PUT | right, body)[0].status == 200
        address = f"/api1/sequences/{deleted.hex()}"
        assert service.ask(address, "DELETE", stale)[0].status == 412
        assert service.ask(address, "DELETE", right)[0].status == 204
        assert service.ask(address)[0].status == 404
        assert not workers(service)

    def test_a_term_that_memory_had_no_room_for(self, serve: Serve, path: Path) -> None:
        """While the term is computed again, /api0 answers 503 at once."""
        with Log(path) as log:
            log.note(b"shared", POSITION)
        service = serve("--cache-bytes", "1")
        until(lambda: service.ask("/api0/current")[0].status == 200)
        service.ask("/api1/sequences", "POST")
        for name in files(service):
            service.file.with_name("cache").joinpath(name).unlink()
        for name in ("current", "next", "previous"):
            reply, body = service.ask(f"/api0/{name}")
            assert (reply.status, body) == (503, b'{"value":"-3","status":"503"}')
            assert int(reply.headers["Retry-After"]) >= 1
        until(lambda: service.ask("/api0/current")[0].status == 200)
        assert service.ask("/api0/current")[1] == (
            b'{"value":"%b","status":"200"}' % expected(POSITION)
        )
