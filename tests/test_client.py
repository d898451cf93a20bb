"""`bigfib.client` with a real service, even if replies are lost on the way."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from flint import fmpz, fmpz_mod_ctx, fmpz_mod_mat

from bigfib.client import Client, Moved, Refused, Sequence, Unanswered, Unreachable
from tests.cli.command import answering
from tests.lossy import LossyProxy, lossy
from tests.service import Service

N = 6_000_000


def term(n: int) -> str:
    return str(fmpz.fib_ui(fmpz(n)))


def residue(n: int, prime: int) -> int:
    """Return F(n) modulo a prime p of 2 or 3 modulo 5: it repeats after 2 (p + 1) terms."""
    assert prime % 5 in (2, 3)
    matrix = fmpz_mod_mat(2, 2, [1, 1, 1, 0], fmpz_mod_ctx(prime))
    return int((matrix ** (n % (2 * prime + 2)))[0, 1])


@pytest.fixture
def client(service: Service) -> Client:
    return Client(service.url)


@pytest.fixture
def proxy(service: Service) -> Iterator[LossyProxy]:
    with lossy(service) as proxy:
        yield proxy


def test_client_needs_the_standard_library_only() -> None:
    code = "import sys; before = {*sys.modules}; import bigfib.client"
    code += "; print(*{*sys.modules} - before)"
    command = [sys.executable, "-I", "-c", code]
    loaded = {name.partition(".")[0] for name in subprocess.check_output(command).decode().split()}
    assert loaded - {*sys.stdlib_module_names} == {"bigfib"}


def test_steps_lead_from_where_the_sequence_was_seen(client: Client) -> None:
    own = client.create(5)
    ahead = client.step(own, 100)
    assert (ahead.id, ahead.position, ahead.value) == (own.id, 105, term(105))
    assert client.step(ahead, -4).position == 101
    assert client.step(own.id).position == 102
    with pytest.raises(Moved, match="it is at position 102"):
        client.step(own)
    with pytest.raises(Moved, match="it is at position 102"):
        client.seek(own, 7)
    assert client.seek(own.id, 7).value == "13"
    client.delete(own.id)
    with pytest.raises(Refused) as refusal:
        client.sequence(own.id)
    assert (refusal.value.status, refusal.value.kind) == (404, "unknown-sequence")


def test_step_before_the_start_is_refused_with_its_kind(client: Client) -> None:
    with pytest.raises(Refused, match=r"there is no term before F\(0\)") as refusal:
        client.step("shared", -1)
    assert refusal.value.kind == "start"


def test_changes_whose_replies_are_lost_are_made_once(proxy: LossyProxy) -> None:
    client = Client(proxy.url)
    own = client.create(3)
    own = client.step(own, 2)
    own = client.seek(own, 50)
    assert client.step(own.id, -10).position == 40
    client.delete(own.id)
    path = f"/api1/sequences/{own.id}"
    # A seek has the same path as the creation.
    changes = [f"PUT {path}", f"POST {path}/next?by=2", f"PUT {path}"]
    changes += [f"POST {path}/previous?by=10", f"DELETE {path}"]
    assert list(dict.fromkeys(proxy.passed)) == list(dict.fromkeys(changes))
    assert [proxy.passed.count(change) for change in dict.fromkeys(changes)] == [3, 2, 2, 2]


def test_lost_step_of_the_shared_sequence_is_never_taken_for_that_of_another(
    service: Service, proxy: LossyProxy
) -> None:
    with pytest.raises(Unanswered, match="it is unknown whether the sequence was moved"):
        Client(proxy.url).step("shared")
    assert service.value("current") == 1


def test_sequence_that_others_keep_moving_is_stepped_all_the_same(
    service: Service, proxy: LossyProxy
) -> None:
    proxy.passed += ["POST /api1/sequences/shared/next?by=100"]  # From now on, no reply is lost.
    proxy.before_change = lambda: service.value("next")
    assert Client(proxy.url).step("shared", 100).position == 104


def test_large_term_is_waited_for_and_continued_where_it_is_cut_off(proxy: LossyProxy) -> None:
    assert Client(proxy.url).term(-N) == f"-{term(N)}"
    assert proxy.has_cut


def test_terms_that_are_cut_off_are_continued(proxy: LossyProxy) -> None:
    lines = list(Client(proxy.url).terms(-3, 10_010, "bfile"))
    assert proxy.has_cut
    assert lines == [f"{n} {'-' * (n == -2)}{term(abs(n))}" for n in range(-3, 10_007)]


def test_term_that_is_cut_off_within_its_digits_is_asked_for_again() -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    # F(17) = 1597, of which two digits arrive.
    with answering(head % 9 + b"987\n15", head % 5 + b"1597\n") as url:
        assert list(Client(url).terms(16, 2)) == ["987", "1597"]


def test_term_whose_reply_is_cut_off_behind_the_last_digit_is_whole() -> None:
    digits = b"1" * (1 << 16)
    head = b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n"
    beyond = b"HTTP/1.1 416 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with answering(head + b"10000\r\n" + digits, beyond) as url:
        assert Client(url).term(313_589) == digits.decode()


def test_residue_summary_and_index_are_exact(client: Client) -> None:
    n = "1" + "0" * 9000
    modulus = 10**9 + 7
    assert client.residue(n, modulus) == str(residue(10**9000, modulus))
    assert client.summary(n)["n"] == n
    assert client.index(term(1000)) == [1000]
    assert client.index(1) == [1, 2]
    with pytest.raises(Refused) as refusal:
        client.index(4)
    assert refusal.value.kind == "not-a-term"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://a b", "ftp://x", "x", "http://[x"])
def test_nothing_there_is_unreachable(url: str) -> None:
    with pytest.raises(Unreachable, match=f"no bigfib answers at {re.escape(url)}/"):
        Client(url).version()


def test_change_that_a_proxy_has_limited_is_asked_for_again() -> None:
    limited = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    elsewhere = b"HTTP/1.1 412 x\r\nContent-Length: 0\r\n\r\n"
    seen = Sequence("0" * 32, 4, "3", '"4"')
    with answering(limited, limited, elsewhere) as url, pytest.raises(Moved) as moved:
        Client(url).step(seen)
    # None of the attempts before was made.
    assert not moved.value.in_doubt


def test_service_is_asked_again_when_it_expects_to_be_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But no more often than 20 times a second, and at least once a second."""
    head = b"Connection: close\r\n\r\n"
    later = [
        b'HTTP/1.1 202 Accepted\r\nRetry-After: 2\r\n%b{"progress":0.5,"seconds_left":%b}'
        % (head, left)
        for left in (b"0.12", b"0", b"1.7")
    ]
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with answering(*later, b"HTTP/1.1 206 Partial Content\r\n%b5" % head) as url:
        assert list(Client(url).progress(10)) == [0.5] * 3
    assert pauses == [0.12, 0.05, 1]
