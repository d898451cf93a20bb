"""Parsers of what requests contain: indices, ids, tags, ranges, types, parameters, documents."""

import io
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import falcon

from bigfib.api import problems, representations, requests
from bigfib.api.representations import Answer, ValueReply
from bigfib.api.stepping import Stepping
from bigfib.numbers.fibonacci import IndexTooLarge, InvalidIndex, parse_index
from bigfib.sequences import Sequences, UnknownSequence, format_id, parse_id, parse_position

_LENGTH = 1000

_BLANKS = " \t\n\r\f\v"


def check(data: bytes) -> None:
    what, data = data[:1], data[1:]
    # The text as WSGI encodes the bytes received.
    text = data.decode("latin-1")
    _CHECKS[(what or b"\0")[0] % len(_CHECKS)](text)


class _Sequences:
    """A stand-in for sequences, which reports the id that it is asked for."""

    def current(self, sequence_id: bytes) -> Any:
        _SAID.append(sequence_id)
        return SimpleNamespace(digits=bytes)

    forward = back = current


class _Reply:
    def now(self, _status: str, _rest: bytes) -> Answer:
        return "200 OK", [], []


_SAID: list[bytes] = []
_STEPPING = Stepping(cast(Sequences, _Sequences()), cast(ValueReply, _Reply()), per_client=True)


def _request(method: str = "GET", query: str = "", body: bytes = b"", **headers: str) -> Any:
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": "/api1/terms/5",
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        **headers,
    }
    return falcon.Request(environ)


def _index(text: str) -> None:
    digits = text.removeprefix("-")
    written = bool(digits) and all(digit in "0123456789" for digit in digits)
    right = text == "0" or (written and digits[0] != "0")
    try:
        number = parse_index(text)
    except InvalidIndex:
        assert not right
    except IndexTooLarge:
        assert len(digits) > 10_000
    else:
        assert right
        assert number.digits() == text
    try:
        position = parse_position(text)
    except (InvalidIndex, IndexTooLarge):
        assert not right or text.startswith("-") or len(digits) > 10_000
    else:
        assert position.digits() == text


def _id(text: str) -> None:
    right = text == "shared" or (len(text) == 32 and all(c in "0123456789abcdef" for c in text))
    try:
        sequence_id = parse_id(text)
    except UnknownSequence:
        assert not right
    else:
        assert right
        assert format_id(sequence_id) == text


def _tags(text: str) -> None:
    etag, _, header = text.partition("\n")
    etag = etag.replace('"', "") or "12"
    met = requests.meets_if_match(_request(HTTP_IF_MATCH=header), etag)
    # Falcon also accepts a tag without quotes; but a change is made only for an exact tag.
    assert not met or "*" in header or etag in header
    known = requests.is_known(_request(HTTP_IF_NONE_MATCH=header), etag)
    assert not known or "*" in header or etag in header
    changes = requests.meets_if_none_match(_request(HTTP_IF_NONE_MATCH=header), etag)
    assert not (changes and known)
    places = requests.places_to_match(_request(HTTP_IF_MATCH=header))
    named = [representations.tags(place)[0] for place in places]
    assert all(tag in header for tag in named)
    simple = [tag.strip(" \t") for tag in header.split(",")]
    if all(re.fullmatch('(W/)?"[0-9]*(-[0-9]+)?"', tag) for tag in simple):
        assert met == (f'"{etag}"' in simple)
        # A number is written in one way only, and no version has 19 digits.
        written = [tag[1:-1] for tag in simple if tag[0] == '"']
        assert named == [tag for tag in written if _is_place(tag)]
        assert known == bool({f'"{etag}"', f'W/"{etag}"'} & set(simple))
        assert changes != known


def _is_place(tag: str) -> bool:
    position, _, version = tag.partition("-")
    numbers = [position, version] if "-" in tag else [position]
    return len(version) < 19 and all(n == "0" or (n and n[0] != "0") for n in numbers)


def _range(text: str) -> None:
    for asked in (text, f"bytes={text}", f"bytes=-{text}"):
        _one_range(asked)


def _one_range(text: str) -> None:
    try:
        found = requests.byte_range(_request(HTTP_RANGE=text), "x", _LENGTH)
    except falcon.HTTPRangeNotSatisfiable:
        unit, _, asked = text.partition("=")
        assert unit == "bytes"
        assert int(asked.partition("-")[0] or _LENGTH) >= _LENGTH
        return
    if found is None:
        return
    first, last = found
    assert 0 <= first <= last < _LENGTH
    asked_first, _, asked_last = text.removeprefix("bytes=").partition("-")
    if asked_first:
        assert first == int(asked_first)
        assert last == min(int(asked_last or _LENGTH), _LENGTH - 1)
    else:
        assert last == _LENGTH - 1
        assert last - first + 1 == min(int(asked_last), _LENGTH)


def _accept(text: str) -> None:
    offered = ("application/json", "text/plain", "application/octet-stream")
    try:
        assert requests.media_type(_request(HTTP_ACCEPT=text), *offered) in offered
    except problems.Problem as problem:
        if problem.status != 406:
            raise


def _cookie(text: str) -> None:
    name = "bigfib=" + "0123456789abcdef" * 2
    for cookie in (text, text[:3] + name + text[3:], text + name + "a=b", "a=b" + name + text):
        _one_cookie(cookie)


def _one_cookie(text: str) -> None:
    _SAID.clear()
    _, headers, _ = _STEPPING.routes["/api0/current"]["GET"]({"HTTP_COOKIE": text})
    (one,) = _SAID
    assert len(one) == 16
    # An id is created, and sent to the client, exactly if none is given.
    given = {digits for part in text.split(";") for digits in _ids(part.strip(_BLANKS))}
    assert bool(headers) == (not given)
    assert headers or one.hex() in given


def _ids(part: str) -> Iterator[str]:
    """Yield the ids between semicolons, of one cookie or of several joined ones."""
    pieces = part.split("bigfib=")
    for place in range(1, len(pieces)):
        before, after = ("bigfib=".join(each) for each in (pieces[:place], pieces[place:]))
        digits, after = after[:32], after[32:].strip(_BLANKS)
        if (
            len(digits) == 32
            and all(digit in "0123456789abcdef" for digit in digits)
            and all(not other or _begins_with_a_name(other) for other in (before, after))
        ):
            yield digits


def _begins_with_a_name(text: str) -> bool:
    name, equals, _ = text.partition("=")
    return bool(name and equals) and not any(blank in name for blank in _BLANKS)


def _query(text: str) -> None:
    for query in (text, f"by={text}"):
        _one_query(query)


def _one_query(text: str) -> None:
    req = _request(query=text)
    try:
        given = requests.parameters(req, "by", "base")
        number = requests.number(given, "by", 1)
    except problems.Problem as problem:
        if problem.status != 422:
            raise
    except IndexTooLarge:
        assert len(text) > 10_000
    else:
        assert set(given) <= {"by", "base"}
        assert number.digits() == given.get("by", "1")


def _document(text: str) -> None:
    body = text.encode("latin-1")
    headers = {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/json"}
    try:
        requests.document(_request("PUT", body=body, **headers))
    except falcon.HTTPError as error:
        if str(error.status)[:3] not in ("400", "413", "415"):
            raise


def _length(text: str) -> None:
    try:
        requests.document(
            _request("PUT", body=b"{}", CONTENT_LENGTH=text, CONTENT_TYPE="application/json")
        )
    except falcon.HTTPError as error:
        if str(error.status)[:3] not in ("400", "413", "415"):
            raise
    else:
        assert int(text) == 2


_CHECKS = (_index, _id, _tags, _range, _accept, _cookie, _query, _document, _length)
