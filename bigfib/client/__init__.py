"""Use a service from Python: its sequences, its terms of any size, and the index of a value.

If a reply is lost, the request is sent again, and no change is made twice. Each method may raise a
`ServiceError`, whose message is one line. Numbers that may have thousands of digits are strings of
digits, because ``int`` refuses to read or write more than 4,300 (`sys.set_int_max_str_digits`).
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPResponse, IncompleteRead
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlencode

from bigfib.client.exchange import (
    FIRST_PAUSE,
    JSON,
    LAST_PAUSE,
    Exchange,
    Moved,
    Refused,
    ServiceError,
    Unanswered,
    Unreachable,
)

__all__ = [
    "SHARED",
    "Client",
    "Moved",
    "Number",
    "Refused",
    "Sequence",
    "ServiceError",
    "Unanswered",
    "Unreachable",
]

SHARED: Final = "shared"
"""The id of the sequence that all clients share."""

_SEQUENCES: Final = "/api1/sequences"
_TERMS: Final = "/api1/terms"

_DECIMAL: Final = 10

_PIECE: Final = 1 << 16

# How many times to look up a sequence that others keep moving, and to move it from there.
_LOOKS: Final = 3

_SUMMARY: Final = ("n", "digits", "leading", "trailing", "bytes")

# Media type and further parameters of each form of lines.
_FORMS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "text": ("text/plain", {}),
    "bfile": ("text/plain", {"format": "bfile"}),
    "json": ("application/x-ndjson", {}),
}

Number = int | str
"""A whole number, or its digits."""


@dataclass(frozen=True)
class Sequence:
    """A sequence as it was seen: ``value`` has the digits of F(``position``).

    Attributes:
        tag: The ETag by which the service recognises this state; clients must not interpret it.
    """

    id: str
    position: int
    value: str
    tag: str


class _Change(NamedTuple):
    """A change: method, path, headers and body, and the position that it leads to from another."""

    request: tuple[str, str, Mapping[str, str], bytes | None]
    leads_to: Callable[[int], int]


class Client:
    """Ask the service at ``url``.

    A request fails after ``timeout`` seconds without a byte, and is given up after ``attempts``
    failures.
    """

    def __init__(self, url: str, *, timeout: float = 60, attempts: int = 6) -> None:
        self._exchange = Exchange(url, timeout, attempts)
        # Sends what must not be repeated.
        self._once = Exchange(url, timeout, 1)

    def version(self) -> str:
        """Return the version of the service if it is ready to take changes."""
        self._exchange.ask("GET", "/readyz", HTTPResponse.read)
        return str(self._exchange.ask("GET", "/openapi.json", json.load)["info"]["version"])

    def address(self, sequence_id: str) -> str:
        """Return the URL of a sequence; a client that knows that of a private one may step it."""
        return f"{self._exchange.url}{_SEQUENCES}/{sequence_id}"

    def create(self, position: int = 0) -> Sequence:
        """Create a private sequence, exactly once even if replies are lost."""
        sequence_id = secrets.token_hex(16)
        headers, body = _position(position)
        try:
            return self._show(sequence_id, "PUT", "", headers | {"If-None-Match": "*"}, body)
        except Moved as error:
            if not error.in_doubt:
                raise
            return self.sequence(sequence_id)  # An earlier attempt has created it.

    def sequence(self, sequence_id: str = SHARED) -> Sequence:
        """Return a sequence as it is now."""
        return self._show(sequence_id)

    def step(self, sequence: Sequence | str, by: int = 1) -> Sequence:
        """Step a sequence by ``by`` terms, back if it is negative, at most once; return it.

        A `Sequence` is stepped from where it was seen or not at all; one that is given by its id,
        from wherever it is.

        Raises:
            Moved: The `Sequence` is elsewhere now.
            Unanswered: It is unknown whether the step was made: replies were lost, and the sequence
                is not where the step leads, or is the shared one, which others may have stepped
                there.
        """
        way = "next" if by > 0 else "previous"
        request = ("POST", f"/{way}?by={abs(by)}", JSON, None)
        return self._move(sequence, _Change(request, lambda position: position + by))

    def seek(self, sequence: Sequence | str, position: int) -> Sequence:
        """Move a sequence to a position; arguments and errors as `step`."""
        request = ("PUT", "", *_position(position))
        return self._move(sequence, _Change(request, lambda _: position))

    def delete(self, sequence_id: str) -> None:
        """Delete a private sequence."""
        try:
            self._exchange.ask("DELETE", f"{_SEQUENCES}/{sequence_id}", HTTPResponse.read)
        except Refused as error:
            if not (error.in_doubt and error.status == HTTPStatus.NOT_FOUND):
                raise

    def term(self, n: Number, base: int = _DECIMAL) -> str:
        """Return F(n); wait until a large one is computed."""
        return "".join(self.pieces(n, base))

    def pieces(
        self, n: Number, base: int = _DECIMAL, media_type: str = "text/plain"
    ) -> Iterator[str]:
        """Yield F(n) in pieces, as `term`; if the reply is cut off, only the rest is requested."""
        path, got = _term_path(n, base), 0

        def rest() -> Iterator[str]:
            nonlocal got
            while True:
                headers = {"Accept": media_type, "Range": f"bytes={got}-"}
                try:
                    with self._exchange.reply("GET", path, headers) as reply:
                        if reply.status != HTTPStatus.ACCEPTED:
                            if reply.status == HTTPStatus.OK:
                                reply.read(got)  # A proxy on the way ignores Range.
                            while piece := reply.read(_PIECE):
                                got += len(piece)
                                yield piece.decode()
                            if reply.length:
                                raise IncompleteRead(b"", reply.length)
                            return
                except Refused as error:
                    # The reply was cut off after the last digit.
                    if got and error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                        return
                    raise
                for _ in self.progress(n, base):
                    pass

        return self._exchange.persist(rest)

    def progress(self, n: Number, base: int = _DECIMAL) -> Iterator[float]:
        """Have the service compute F(n); yield the share that is done until it has the term."""
        # A request for one byte starts the computation, and shows whether the term is there.
        headers = {"Accept": "text/plain", "Range": "bytes=0-0"}
        while job := self._exchange.ask("GET", _term_path(n, base), _job, headers):
            done, seconds_left = job
            yield done
            time.sleep(min(max(seconds_left, FIRST_PAUSE), LAST_PAUSE))

    def terms(
        self, first: int, count: int, form: Literal["text", "bfile", "json"] = "text"
    ) -> Iterator[str]:
        """Yield a line for each of ``count`` consecutive terms; ``bfile`` and ``json`` show n."""
        media_type, parameters = _FORMS[form]
        done = 0

        def rest() -> Iterator[str]:
            nonlocal done
            # A reply has 10,000 terms at most.
            while done < count:
                given = {"from": first + done, "count": count - done, **parameters}
                path, before = f"{_TERMS}?{urlencode(given)}", done
                with self._exchange.reply("GET", path, {"Accept": media_type}) as reply:
                    for line in reply:
                        if not line.endswith(b"\n"):
                            raise IncompleteRead(line)
                        done += 1
                        yield line.decode().rstrip("\n")
                    if done == before:
                        raise ValueError("its reply has no terms")

        return self._exchange.persist(rest)

    def residue(self, n: Number, modulo: Number) -> str:
        """Return F(n) modulo ``modulo``."""
        path = f"{_term_path(n)}?{urlencode({'modulo': modulo})}"
        return self._exchange.ask("GET", path, lambda reply: _text(json.load(reply), "residue"))

    def summary(self, n: Number) -> dict[str, str]:
        """Return digit count, first and last digits of F(n), and the bytes that it takes."""

        def read(reply: HTTPResponse) -> dict[str, str]:
            document = json.load(reply)
            return {name: _text(document, name) for name in _SUMMARY}

        return self._exchange.ask("GET", f"{_term_path(n)}/summary", read)

    def index(self, value: Number) -> list[int]:
        """Return the indices of the terms with this value: 1 and 2 for 1, otherwise one.

        Raises:
            Refused: No term has it; the kind is ``not-a-term``.
        """
        headers = {**JSON, "Content-Type": "text/plain"}
        return self._exchange.ask("POST", "/api1/index", _indices, headers, str(value).encode())

    def _move(self, sequence: Sequence | str, change: _Change) -> Sequence:
        if isinstance(sequence, Sequence):
            return self._move_from(sequence, change)
        for _ in range(_LOOKS):
            with suppress(Moved):
                return self._move_from(self.sequence(sequence), change)
        # Others keep moving it. A change without a condition must not be sent twice.
        return self._show(sequence, *change.request, exchange=self._once)

    def _move_from(self, seen: Sequence, change: _Change) -> Sequence:
        method, path, headers, body = change.request
        try:
            return self._show(seen.id, method, path, {**headers, "If-Match": seen.tag}, body)
        except Moved as error:
            if not error.in_doubt:
                raise
            now = self.sequence(seen.id)
            # Nobody else knows the id of a private sequence.
            if now.id != SHARED and now.position == change.leads_to(seen.position):
                return now
            raise Unanswered(
                f"it is unknown whether the sequence was moved from position {seen.position}: the "
                f"reply is lost, and others may have moved it to {now.position}, where it is now"
            ) from error

    def _show(
        self,
        sequence_id: str,
        method: str = "GET",
        path: str = "",
        headers: Mapping[str, str] = JSON,
        body: bytes | None = None,
        *,
        exchange: Exchange | None = None,
    ) -> Sequence:
        """Send a request whose reply shows a sequence; return the sequence."""
        whole_path = f"{_SEQUENCES}/{sequence_id}{path}"
        return (exchange or self._exchange).ask(method, whole_path, _sequence, headers, body)


def _sequence(reply: HTTPResponse) -> Sequence:
    document = json.load(reply)
    sequence_id, position, value = (_text(document, n) for n in ("id", "position", "value"))
    return Sequence(sequence_id, int(position), value, _text(reply.headers, "ETag"))


def _position(position: int) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a request with a position."""
    body = json.dumps({"position": str(position)}).encode()
    return {**JSON, "Content-Type": "application/json"}, body


def _term_path(n: Number, base: int = _DECIMAL) -> str:
    return f"{_TERMS}/{n}" if base == _DECIMAL else f"{_TERMS}/{n}?base={base}"


def _job(reply: HTTPResponse) -> tuple[float, float] | None:
    """Return the computed share of a term and the seconds left, or None if the term is ready."""
    if reply.status != HTTPStatus.ACCEPTED:
        return None
    job = json.load(reply)
    return float(job["progress"]), float(job["seconds_left"])


def _indices(reply: HTTPResponse) -> list[int]:
    return [int(n) for n in json.load(reply)["n"]]


def _text(document: Any, name: str) -> str:
    """Return a member of a document; raise `TypeError` unless it is a string."""
    member = document[name]
    if not isinstance(member, str):
        raise TypeError(f"its {name} is not a string")
    return member
