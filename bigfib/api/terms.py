"""``/api1/terms``: any term, its residues and what can be said of it, and terms in a row.

A term never changes, so every reply may be kept for ever.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final
from urllib.parse import urlencode

import falcon
from gmpy2 import mpz

from bigfib import terms
from bigfib.api import requests
from bigfib.api.problems import Problem
from bigfib.api.representations import JSON, LINES_OF_JSON, OCTETS, TEXT
from bigfib.jobs import InProgress, Job, Jobs
from bigfib.numbers import fibonacci
from bigfib.numbers.fibonacci import InvalidIndex, parse_index

MAX_LINES: Final = 10_000
"""Most terms in one reply."""

MAX_STREAMS: Final = 32
"""Most replies with terms in a row at a time; at the far end each takes 1.5 MB."""

# Lines are sent by as many as fill this, but at least one: other requests wait for no more.
_CHUNK_BYTES: Final = 1 << 14

# Of a file that is not sent as it is, so much is read at a time.
_PIECE_BYTES: Final = 1 << 16

_DECIMAL: Final = 10

_FOR_EVER: Final = ["public", "max-age=31536000", "immutable"]

_Line = Callable[[int, bytes], bytes]


class Term:
    """``/api1/terms/{n}``."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def on_get(self, req: falcon.Request, resp: falcon.Response, n: str) -> None:
        """Show F(n), or its residue."""
        index = parse_index(n)
        parameters = requests.parameters(req, "base", "modulo")
        if "modulo" in parameters:
            _show_residue(req, resp, index, parameters)
        else:
            _show_term(req, resp, index, parameters, self._jobs)

    on_head = on_get


class TermJob:
    """``/api1/terms/{n}/job``: the computation of a far term."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def on_get(self, req: falcon.Request, resp: falcon.Response, n: str) -> None:
        """Show how it stands, whichever server has told of it; one that is unknown is begun."""
        requests.parameters(req)
        index = parse_index(n)
        if abs(index) <= terms.INLINE_LIMIT:
            raise _no_job(index)
        _require_given(index, self._jobs)
        job = self._jobs.look(int(abs(index)))
        if job is None:
            raise _no_job(index)
        _show_job(resp, index, job)

    on_head = on_get

    def on_delete(self, req: falcon.Request, resp: falcon.Response, n: str) -> None:
        """Cancel it, for all who wait for it at this server; a finished term stays."""
        requests.parameters(req)
        index = parse_index(n)
        if not self._jobs.cancel(int(abs(index))):
            raise _no_job(index)
        resp.status = falcon.HTTP_204


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
    req: falcon.Request, resp: falcon.Response, n: mpz, parameters: dict[str, str], jobs: Jobs
) -> None:
    base = _base(parameters)
    media_type = requests.media_type(req, JSON, TEXT, OCTETS)
    if media_type == OCTETS and base != _DECIMAL:
        raise Problem(422, f"{OCTETS} has no base: leave it out, or accept {TEXT} or {JSON}.")
    _require_given(n, jobs)
    far = abs(n) > terms.INLINE_LIMIT
    if far and (media_type == OCTETS or base != _DECIMAL):
        raise Problem(
            422,
            f"Beyond F({terms.INLINE_LIMIT}) terms are given in decimal only, as {JSON} or {TEXT}.",
            headers=_link_to_summary(n),
        )
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
    if not _is_wanted(req, etag):
        resp.accept_ranges = "bytes"
        _describe(req, resp, etag, media_type, length)
        return
    part = requests.byte_range(req, etag, length)
    first, last = part or (0, length - 1)
    if far:
        try:
            file = jobs.open(int(abs(n)))
        except InProgress as reason:
            _accept(resp, n, reason)
            return
        sign = b"-" if fibonacci.is_negative(n) else b""
        _send(resp, opening + sign, file, closing, first, last)
    else:
        value = terms.octets(n) if media_type == OCTETS else terms.text(n, base)
        body = opening + value + closing
        resp.data = body[first : last + 1] if part else body
    resp.accept_ranges = "bytes"
    _describe(req, resp, etag, media_type, length)
    if part:
        resp.status = falcon.HTTP_206
        resp.content_range = (first, last, length)


def _base(parameters: dict[str, str]) -> int:
    """Return the base asked for; decimal, which is the default, may be asked for anywhere.

    Raises:
        InvalidIndex: it is none that a term is written in.
    """
    base = int(requests.number(parameters, "base", _DECIMAL))
    if base not in terms.BASES:
        raise InvalidIndex(f"base is {terms.BASES[0]} to {terms.BASES[-1]}")
    return base


def _require_given(n: mpz, jobs: Jobs) -> None:
    """Return if F(n) is given in full.

    Raises:
        Problem: 422, it is beyond the limit.
    """
    if abs(n) > jobs.max_term:
        limit = f"Terms are given in full from F(-{jobs.max_term}) to F({jobs.max_term})"
        raise Problem(
            422,
            f"{limit}; the summary and residues of this one can be had.",
            headers=_link_to_summary(n),
        )


def _accept(resp: falcon.Response, n: mpz, reason: InProgress) -> None:
    """Say that the term is being computed, and where to see how far that is."""
    resp.status = falcon.HTTP_202
    resp.location = f"/api1/terms/{n.digits()}/job"
    resp.retry_after = reason.retry_after
    _show_job(resp, n, reason.job)


def _show_job(resp: falcon.Response, n: mpz, job: Job) -> None:
    document = {"n": n.digits(), "state": job.state.value, "progress": job.progress}
    if job.failure:
        document["failure"] = job.failure
    resp.content_type = JSON
    resp.cache_control = ["no-store"]
    resp.data = json.dumps(document, separators=(",", ":")).encode()


def _no_job(n: mpz) -> Problem:
    shown = n.digits() if abs(n) < 10**20 else "this term"
    return Problem(404, f"Nothing computes {shown}; GET the term itself to have it computed.")


def _send(
    resp: falcon.Response, opening: bytes, file: BinaryIO, closing: bytes, first: int, last: int
) -> None:
    """Send bytes ``first`` to ``last`` of the opening, the file and the closing.

    Never the file itself: if the client resets the connection, bjoern sends freed memory, perhaps
    to another client, or loops for ever (``do_sendfile`` in server.c). Pieces are as fast: 11.4 ms
    for 10.4 MB, compared with 11.7.
    """
    resp.content_length = last + 1 - first
    size = os.fstat(file.fileno()).st_size
    resp.stream = _Stream(_spliced(opening, file, size, closing, first, last), file.close)


def _spliced(
    opening: bytes, file: BinaryIO, size: int, closing: bytes, first: int, last: int
) -> Iterator[bytes]:
    end = last + 1
    if first < len(opening):
        yield opening[first:end]
    start = max(first - len(opening), 0)
    left = min(end - len(opening), size) - start
    file.seek(start)
    while left > 0:
        piece = file.read(min(left, _PIECE_BYTES))
        if not piece:
            raise EOFError(f"{file.name} has become shorter")
        yield piece
        left -= len(piece)
    behind = len(opening) + size
    if end > behind:
        yield closing[max(first - behind, 0) : end - behind]


def _show_residue(
    req: falcon.Request, resp: falcon.Response, n: mpz, parameters: dict[str, str]
) -> None:
    if _base(parameters) != _DECIMAL:
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
    if _is_wanted(req, etag):
        resp.data = body
    _describe(req, resp, etag, media_type, len(body))


def _is_wanted(req: falcon.Request, etag: str) -> bool:
    """Return whether the body shall be sent.

    Raises:
        Problem: 412, ``If-Match`` asks for another.
    """
    if not requests.meets_if_match(req, etag):
        raise Problem(412, "This has another tag than If-Match.", headers={"ETag": f'"{etag}"'})
    return req.method != "HEAD" and not requests.is_known(req, etag)


def _describe(
    req: falcon.Request, resp: falcon.Response, etag: str, media_type: str, length: int
) -> None:
    """Put into ``resp`` the headers of a body of ``length`` bytes, whether or not it is sent."""
    resp.etag = etag
    _keep_for_ever(resp)
    if requests.is_known(req, etag):
        resp.status = falcon.HTTP_304
        return
    resp.content_type = media_type
    if req.method == "HEAD":
        resp.content_length = length


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
