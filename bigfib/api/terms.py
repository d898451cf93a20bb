"""``/api1/terms``: any term, its residues and what can be said of it, and terms in a row.

A term never changes, so every reply may be kept for ever.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import urlencode

import falcon
from gmpy2 import mpz

from bigfib import terms
from bigfib.api import requests
from bigfib.api.problems import Problem
from bigfib.api.representations import JSON, LINES_OF_JSON, OCTETS, TEXT
from bigfib.numbers import fibonacci
from bigfib.numbers.fibonacci import IndexTooLarge, InvalidIndex, parse_index

MAX_LINES: Final = 10_000
"""Most terms in one reply."""

MAX_STREAMS: Final = 32
"""Most replies with terms in a row at a time; at the far end each takes 1.5 MB."""

# Lines are sent by as many as fill this, but at least one: other requests wait for no more.
_CHUNK_BYTES: Final = 1 << 14

_FOR_EVER: Final = ["public", "max-age=31536000", "immutable"]

_Line = Callable[[int, bytes], bytes]


class Term:
    """``/api1/terms/{n}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, n: str) -> None:
        """Show F(n), or its residue."""
        index = parse_index(n)
        parameters = requests.parameters(req, "base", "modulo")
        if "modulo" in parameters:
            _show_residue(req, resp, index, parameters)
        else:
            _show_term(req, resp, index, parameters)

    on_head = on_get


class Summary:
    """``/api1/terms/{n}/summary``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, n: str) -> None:
        """Say how many digits F(n) has, and which are the first and the last."""
        index = parse_index(n)
        given = requests.parameters(req, "digits")
        ends = requests.number(given, "digits", terms.DEFAULT_ENDS)
        if not 1 <= ends <= terms.MAX_ENDS:
            raise InvalidIndex(f"digits, how many to show of either end, is 1 to {terms.MAX_ENDS}")
        media_type = requests.media_type(req, JSON)
        members = terms.summary(index, int(ends)).items()
        _show_small(req, resp, media_type, _json((name, value.encode()) for name, value in members))

    on_head = on_get


class TermRange:
    """``/api1/terms``."""

    def __init__(self) -> None:
        self._open_streams = 0

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send terms in a row, one a line."""
        parameters = requests.parameters(req, "from", "count", "format")
        media_type, line = _line(req, parameters.get("format"))
        first = requests.number(parameters, "from", 0)
        terms.require_inline(first)
        count = requests.number(parameters, "count", int(terms.INLINE_LIMIT - first + 1))
        if count < 1:
            raise InvalidIndex("count is the number of terms, at least 1")
        terms.require_inline(first + count - 1)
        if self._open_streams >= MAX_STREAMS:
            raise Problem(
                503,
                f"Terms in a row are being sent to {MAX_STREAMS} clients, which is all that the "
                "service does at a time; try again later.",
                headers={"Retry-After": "1"},
            )
        sent = min(count, MAX_LINES)
        resp.content_type = media_type
        _keep_for_ever(resp)
        if count > sent:
            following = parameters | {"from": (first + sent).digits()}
            if "count" in parameters:
                following["count"] = (count - sent).digits()
            resp.append_link(f"/api1/terms?{urlencode(following)}", "next")
        lines = (line(n, value) for n, value in terms.walk(int(first), int(sent)))
        self._open_streams += 1
        resp.stream = _Stream(_chunks(lines), self._stream_closed)

    def _stream_closed(self) -> None:
        self._open_streams -= 1


class _Stream:
    """The chunks of a body, and what to do when it has been sent or nobody wants it any more."""

    def __init__(self, chunks: Iterator[bytes], when_closed: Callable[[], None]) -> None:
        self._chunks = chunks
        self._when_closed = when_closed

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Be told by the server that it wants no more."""
        self._when_closed()


def _show_term(
    req: falcon.Request, resp: falcon.Response, n: mpz, parameters: dict[str, str]
) -> None:
    base = int(requests.number(parameters, "base", 10))
    if base not in terms.BASES:
        raise InvalidIndex(f"base is {terms.BASES[0]} to {terms.BASES[-1]}")
    media_type = requests.media_type(req, JSON, TEXT, OCTETS)
    if media_type == OCTETS and "base" in parameters:
        raise Problem(422, f"{OCTETS} has no base: leave it out, or accept {TEXT} or {JSON}.")
    try:
        terms.require_inline(n)
    except IndexTooLarge as error:
        raise Problem(422, str(error), headers=_link_to_summary(n)) from error
    opening, closing = b"", b""
    if media_type == OCTETS:
        length = terms.octets_length(n)
    else:
        length = terms.text_length(n, base)
        if media_type == JSON:
            digits = length - fibonacci.is_negative(n)
            opening = b'{"n":"%d","digits":"%d","value":"' % (n, digits)
            closing = b'","base":"%d"}' % base if "base" in parameters else b'"}'
            length += len(opening) + len(closing)
    # Whoever asks for base 10 is told so in the document.
    etag = f"{n.digits()}.{parameters.get('base', '')}.{media_type.rpartition('/')[2]}"
    resp.accept_ranges = "bytes"
    if not _wants_body(req, resp, etag, media_type, length):
        return
    part = requests.byte_range(req, etag, length)
    value = terms.octets(n) if media_type == OCTETS else terms.text(n, base)
    body = opening + value + closing
    if part:
        first, last = part
        resp.status = falcon.HTTP_206
        resp.content_range = (first, last, length)
        body = body[first : last + 1]
    resp.data = body


def _show_residue(
    req: falcon.Request, resp: falcon.Response, n: mpz, parameters: dict[str, str]
) -> None:
    if "base" in parameters:
        raise Problem(422, "Ask for modulo or for base, not both; a residue is decimal.")
    modulus = terms.parse_modulus(parameters["modulo"])
    terms.require_cheap_residue(n, modulus)
    media_type = requests.media_type(req, JSON, TEXT)
    members = {"n": n, "modulo": modulus, "residue": fibonacci.residue(n, modulus)}
    digits = {name: number.digits().encode() for name, number in members.items()}
    _show_small(
        req, resp, media_type, _json(digits.items()) if media_type == JSON else digits["residue"]
    )


def _show_small(req: falcon.Request, resp: falcon.Response, media_type: str, body: bytes) -> None:
    """Show a body that is quickly made, whether or not it is asked for."""
    etag = hashlib.blake2b(body, digest_size=8).hexdigest()
    if _wants_body(req, resp, etag, media_type, len(body)):
        resp.data = body


def _wants_body(
    req: falcon.Request, resp: falcon.Response, etag: str, media_type: str, length: int
) -> bool:
    """Put into ``resp`` the headers for a body of ``length`` bytes, and return if it shall follow.

    Raises:
        Problem: 412, ``If-Match`` asks for another.
    """
    if not requests.meets_if_match(req, etag):
        raise Problem(412, "This has another tag than If-Match.", headers={"ETag": f'"{etag}"'})
    resp.etag = etag
    _keep_for_ever(resp)
    if requests.is_known(req, etag):
        resp.status = falcon.HTTP_304
        return False
    resp.content_type = media_type
    if req.method == "HEAD":
        resp.content_length = length
        return False
    return True


def _keep_for_ever(resp: falcon.Response) -> None:
    resp.cache_control = _FOR_EVER
    resp.vary = ["Accept"]


def _link_to_summary(n: mpz) -> dict[str, str]:
    path = f"/api1/terms/{n.digits()}/summary"
    # Of an index of thousands of digits the header would be more than others take.
    return {"Link": f'<{path}>; rel="related"'} if len(path) <= 1000 else {}


def _json(members: Iterable[tuple[str, bytes]]) -> bytes:
    return b"{%b}" % b",".join(b'"%b":"%b"' % (name.encode(), value) for name, value in members)


def _line(req: falcon.Request, format_name: str | None) -> tuple[str, _Line]:
    """Return the media type of the lines asked for, and what writes one."""
    if format_name == "bfile":
        return requests.media_type(req, TEXT), lambda n, value: b"%d %b\n" % (n, value)
    if format_name is not None:
        raise Problem(422, f"There is no format {format_name!r:.60}; there is bfile.")
    media_type = requests.media_type(req, TEXT, LINES_OF_JSON)
    if media_type == TEXT:
        return media_type, lambda _, value: value + b"\n"
    return (
        media_type,
        lambda n, value: (
            b'{"n":"%d","digits":"%d","value":"%b"}\n' % (n, len(value.lstrip(b"-")), value)
        ),
    )


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    waiting, length = [], 0
    for line in lines:
        waiting.append(line)
        length += len(line)
        if length >= _CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, length = [], 0
    if waiting:
        yield b"".join(waiting)
