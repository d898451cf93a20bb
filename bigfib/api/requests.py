"""Read requests beyond their path: parameters, media type, preconditions, range, body.

Headers that most requests lack are looked up in ``req.env``: `falcon.Request.get_header` takes 15
times as long to find that one is absent, 0.6 us.
"""

import json
import os
import re
from typing import Any, Final

import falcon
from falcon.util import mediatypes
from gmpy2 import mpz

from bigfib.api.problems import Problem
from bigfib.api.representations import JSON
from bigfib.numbers.fibonacci import InvalidIndex, parse_index
from bigfib.numbers.notation import suggestion
from bigfib.state.store import Place

MAX_BODY_BYTES: Final = 1 << 20
"""Maximum size of a body; the document of a sequence with a million digits fits."""

# The tag of a sequence, as `representations.tags` writes it. A database counts up to 2^63.
_PLACE: Final = re.compile(r"(0|[1-9][0-9]*)(?:-(0|[1-9][0-9]{0,17}))?", re.ASCII)

# The value of If-None-Match other than `*`. Commas are optional: bjoern joins lines without one.
_TAG: Final = re.compile(r'"([^"]*)"')
_TAGS: Final = re.compile(r'[ \t,]*(?:(?:W/)?"[^"]*"[ \t,]*)*')

# An unclosed string extends to the end, so that the search is linear.
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"?')

# A media range has one slash. A second slash without a comma before it belongs to the next header
# line. The types are those of IANA's registry.
_END_OF_LINE: Final = re.compile(
    r"(/[^,/]*?)(?=(?:application|audio|example|font|haptics|image|message|model|multipart|text|"
    r"video|\*)/)"
)

# No reply has offsets of more digits, and Python refuses to convert thousands of them.
_RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))", re.ASCII)


def parameters(req: falcon.Request, *names: str) -> dict[str, str]:
    """Return the query parameters; raise a 422 unless they are ``names``, each at most once."""
    given: dict[str, str] = {}
    if not req.query_string:
        return given
    for name, value in req.params.items():
        if name not in names:
            known = " and ".join(names) or "none"
            raise Problem(422, f"The parameter {name!r:.60} is unknown; this takes {known}.")
        if not isinstance(value, str):
            raise Problem(422, f"Give the parameter {name} once.")
        given[name] = value
    return given


def number(given: dict[str, str], name: str, default: int) -> mpz:
    """Return the parameter ``name``, or ``default``; raise a 422 if it is not a number."""
    try:
        return parse_index(given[name]) if name in given else mpz(default)
    except InvalidIndex:
        raise Problem(
            422,
            f"The parameter {name} is not a number: {given[name]!r:.60}; "
            f"{suggestion(given[name], 'it in digits')}.",
        ) from None


def media_type(req: falcon.Request, *offered: str) -> str:
    """Return the media type that ``Accept`` prefers; of equally good ones, the first offered.

    Names are case-insensitive, and empty members are ignored (RFC 9110, 8.3.1 and 5.6.1). bjoern
    joins several header lines without a comma; one is added where the next type begins.

    Raises:
        Problem: 406, none of those ``offered``, which are in lower case, is acceptable.
    """
    header: str = req.env.get("HTTP_ACCEPT", "*/*")
    if header == "*/*":
        return offered[0]
    if header in offered:
        return header
    # Quoted values, which may have commas, belong to parameters, and no offered type has any.
    unquoted = _QUOTED.sub('""', header.lower())
    ranges = _END_OF_LINE.sub(r"\1,", unquoted).split(",")
    accept = ",".join(one for one in ranges if one.strip())
    try:
        chosen = mediatypes.best_match(offered, accept or "*/*")
    except ValueError:  # Malformed.
        chosen = ""
    if not chosen:
        raise Problem(406, f"This is available as {' or '.join(offered)}; see the Accept header.")
    return chosen


def is_conditional(req: falcon.Request) -> bool:
    """Return whether the request has ``If-Match`` or ``If-None-Match``."""
    return "HTTP_IF_MATCH" in req.env or "HTTP_IF_NONE_MATCH" in req.env


def meets_if_match(req: falcon.Request, *etags: str) -> bool:
    """Return whether ``If-Match`` (RFC 9110, 13.1.1) allows the request: it names one of these."""
    if req.env.get("HTTP_IF_MATCH", "*").strip() == "*":
        return True
    # A malformed value matches nothing: such a client wants a condition, so nothing may change. Nor
    # does the quoted tag `"*"` match, which Falcon takes for a bare `*`.
    return any(
        isinstance(tag, falcon.ETag) and not tag.is_weak and tag in etags
        for tag in req.if_match or ()
    )


def places_to_match(req: falcon.Request) -> list[Place]:
    """Return the places that ``If-Match`` names; other tags match no place."""
    tags = [tag for tag in req.if_match or () if tag != "*" and not tag.is_weak]
    return [
        Place(int(mpz(found[1])), int(found[2]) if found[2] else None)
        for found in map(_PLACE.fullmatch, tags)
        if found
    ]


def meets_if_none_match(req: falcon.Request, *etags: str) -> bool:
    """Return whether ``If-None-Match`` (RFC 9110, 13.1.2) allows a change of this version.

    Tags are compared weakly. A malformed value matches every tag, as ``*`` does: such a client
    wants a condition, so nothing may change.
    """
    header = req.env.get("HTTP_IF_NONE_MATCH", "")
    return bool(_TAGS.fullmatch(header)) and not set(etags) & set(_TAG.findall(header))


def is_known(req: falcon.Request, etag: str) -> bool:
    """Return whether the client has this version, by ``If-None-Match``: a GET then gets a 304."""
    header = req.env.get("HTTP_IF_NONE_MATCH", "")
    return bool(header) and (header.strip() == "*" or etag in (req.if_none_match or ()))


def byte_range(req: falcon.Request, etag: str, length: int) -> tuple[int, int] | None:
    """Return the first and the last byte that ``Range`` (RFC 9110, 14) asks for, or None for all.

    Anything but a single range of bytes is ignored, as is a range if ``If-Range`` does not match.

    Raises:
        HTTPRangeNotSatisfiable: the range begins after the end.
    """
    asked = _RANGE.fullmatch(req.env.get("HTTP_RANGE", ""))
    if not asked or req.env.get("HTTP_IF_RANGE", f'"{etag}"').strip() != f'"{etag}"':
        return None
    if not asked[1]:
        first, last = max(length - int(asked[3]), 0), length - 1
    else:
        first, last = int(asked[1]), min(int(asked[2] or length), length - 1)
    if last < first < length:
        return None
    if first >= length:
        raise falcon.HTTPRangeNotSatisfiable(
            length, description=f"There are {length} bytes, numbered from 0."
        )
    return first, last


def document(req: falcon.Request) -> Any:
    """Return the JSON document in the body.

    Raises:
        Problem: As `body`; or 400, the document is malformed.
    """
    try:
        return json.loads(body(req, JSON).decode())
    except (ValueError, RecursionError) as error:
        raise Problem(400, "The body is not a JSON document, or is nested too deeply.") from error


def body(req: falcon.Request, media_type: str) -> bytes:
    """Return the body, which is of this media type.

    Raises:
        Problem: 400, it is a part (RFC 9110, 14.5), or not as long as stated; 413, it is longer
            than `MAX_BODY_BYTES`; 415, it is of another type.
    """
    if req.get_header("Content-Range") is not None:
        raise Problem(400, "Send the whole body, without Content-Range; a part is not accepted.")
    if (req.content_length or 0) > MAX_BODY_BYTES:
        raise Problem(413, f"A body has at most {MAX_BODY_BYTES} bytes.")
    stream = req.env["wsgi.input"]
    # bjoern has read the whole body into a buffer, which can be sought in.
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    # Of several Content-Length headers bjoern uses the last one, and some proxies the first.
    if length != (req.content_length or 0):
        raise Problem(400, "The body is not as long as Content-Length says; send that header once.")
    # Media types are case-insensitive (RFC 9110, 8.3.1).
    kind = (req.content_type or media_type).partition(";")[0].strip().lower()
    if kind != media_type:
        raise Problem(415, f"Send the body as {media_type}.")
    content: bytes = stream.read()
    return content
