"""Serve consecutive terms, one a line: ``/api1/terms``."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import urlencode

import falcon

from bigfib import terms
from bigfib.api import requests
from bigfib.api.problems import Problem
from bigfib.api.representations import LINES_OF_JSON, TEXT, Body, keep_for_ever
from bigfib.numbers.fibonacci import InvalidIndex

MAX_LINES: Final = 10_000
"""Maximum number of terms in a reply."""

MAX_STREAMS: Final = 32
"""Maximum number of these replies at a time; near the largest terms each takes 1.5 MB."""

# Lines are joined until a chunk is this long. Other requests wait while a chunk is computed.
_CHUNK_BYTES: Final = 1 << 14

_Line = Callable[[int, bytes], bytes]


class TermRange:
    """Serve ``/api1/terms``."""

    def __init__(self) -> None:
        self._open_streams = 0

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send consecutive terms, one a line."""
        parameters = requests.parameters(req, "from", "count", "format")
        media_type, line = _line(req, parameters.get("format"))
        first = requests.number(parameters, "from", 0)
        terms.require_inline(first)
        count = requests.number(parameters, "count", int(terms.INLINE_LIMIT - first + 1))
        if count < 1:
            raise InvalidIndex("the count is the number of terms, and must be at least 1")
        terms.require_inline(first + count - 1)
        if self._open_streams >= MAX_STREAMS:
            raise Problem(
                503,
                f"The service is sending consecutive terms to {MAX_STREAMS} clients, which is its "
                "limit; try again in 1 s.",
                headers={"Retry-After": "1"},
            )
        sent = min(count, MAX_LINES)
        resp.content_type = media_type
        keep_for_ever(resp)
        if count > sent:
            following = parameters | {"from": (first + sent).digits()}
            if "count" in parameters:
                following["count"] = (count - sent).digits()
            resp.append_link(f"/api1/terms?{urlencode(following)}", "next")
        lines = (line(n, value) for n, value in terms.walk(int(first), int(sent)))
        self._open_streams += 1
        resp.stream = Body(_chunks(lines), self._stream_closed)

    def _stream_closed(self) -> None:
        self._open_streams -= 1


def _line(req: falcon.Request, format_name: str | None) -> tuple[str, _Line]:
    """Return the media type of the lines asked for, and the function that writes one."""
    if format_name == "bfile":
        return requests.media_type(req, TEXT), lambda n, value: b"%d %b\n" % (n, value)
    if format_name is not None:
        raise Problem(422, f"The format {format_name!r:.60} is unknown; the only one is bfile.")
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
