"""The HTTP interface as an OpenAPI 3.1 document, with the limits that the code has.

It names every path, method, status, header and media type; the tests hold it against what the
service answers.
"""

from typing import Any, Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics

import bigfib
from bigfib.api import problems
from bigfib.api.page import POLICY
from bigfib.api.representations import JSON, LINES_OF_JSON, OCTETS, TEXT
from bigfib.api.requests import MAX_BODY_BYTES
from bigfib.api.terms import MAX_LINES, MAX_STREAMS
from bigfib.jobs import State
from bigfib.numbers.fibonacci import MAX_INDEX_DIGITS
from bigfib.terms import (
    BASES,
    DEFAULT_ENDS,
    INLINE_LIMIT,
    MAX_ENDS,
    MAX_MODULUS_DIGITS,
    MAX_RESIDUE_WORK,
)

_Object = dict[str, Any]

_DESCRIPTION: Final = """\
The Fibonacci sequence as a service without a ceiling.

Numbers that may exceed 2^53 are strings. An index is written `0|-?[1-9][0-9]*`. Unknown and \
repeated parameters are refused.

Every error outside `/api0` is a problem document (RFC 9457), whatever `Accept` says; but for what \
is no HTTP at all, a method that HTTP does not know, or more than 80 KiB before the body, which \
gets a bare `400`. A path that takes other methods than the one asked for answers `405` with \
`Allow`.
"""


def describe(max_term: int, farthest: int) -> _Object:
    """Return the document of a service.

    Args:
        max_term: The largest index of a term that it gives in full.
        farthest: The largest position that a sequence is moved to at once.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bigfib",
            "version": bigfib.__version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [
            {"name": name, "description": description}
            for name, description in (
                ("sequences", "Sequences of one's own, and the shared one."),
                ("terms", "Any term, its residues, what can be said of it, and terms in a row."),
                ("stepping", "The service that bigfib replaces, to the byte."),
                ("operations", "What operators ask."),
                ("page", "The page for people, which asks for what is above."),
            )
        ],
        "paths": _paths(max_term, farthest),
        "components": {"schemas": _SCHEMAS, "headers": _HEADERS},
    }


def _paths(max_term: int, farthest: int) -> _Object:
    return {
        **_sequence_paths(farthest),
        **_term_paths(max_term),
        **_stepping_paths(),
        "/livez": _path(
            "operations",
            get=_operation(
                "Whether the service answers",
                {"200": _answer("It does.", "Cache-Control", content=_TEXT_CONTENT)},
                _VERBOSE,
            ),
        ),
        "/readyz": _path(
            "operations",
            get=_operation(
                "Whether the service can take changes",
                {
                    "200": _answer("It can.", "Cache-Control", content=_TEXT_CONTENT),
                    "503": _with_text(
                        _problem(
                            "The store cannot be asked now, or the service stops.", "Retry-After"
                        )
                    ),
                },
                _VERBOSE,
            ),
        ),
        "/metrics": _path(
            "operations",
            get=_operation(
                "What Prometheus is told",
                {
                    "200": _answer(
                        "All there is, in the format that Accept asks for.",
                        "Cache-Control",
                        content={
                            media_type: {"schema": {"type": "string"}}
                            for media_type in (
                                CONTENT_TYPE_PLAIN_0_0_4,
                                openmetrics.CONTENT_TYPE_LATEST,
                            )
                        },
                    )
                },
            ),
        ),
        "/test/stats": _path(
            "operations",
            get=_operation(
                "Memory in use",
                {"200": _answer("A line of text.", "Cache-Control", content=_TEXT_CONTENT)},
            ),
        ),
        **_page_paths(),
        "/openapi.json": _path(
            "operations",
            get=_operation(
                "This document",
                {"200": _answer("OpenAPI 3.1.", "Cache-Control", content={JSON: {}})},
            ),
        ),
    }


# --- What there is ---------------------------------------------------------------------------


def _sequence_paths(farthest: int) -> _Object:
    shown = ("ETag", "Cache-Control")
    sequence = {JSON: {"schema": _ref("schemas", "Sequence")}}
    as_it_stands = _answer("The sequence as it then stands.", *shown, content=sequence)
    unknown = _problem(
        "There is no such sequence: never created, deleted, or not stepped for too long."
    )
    moved = _problem("It is at another position than If-Match has.", "ETag", at=True)
    unmet = _problem(
        "It is at another position than If-Match has, or at one that If-None-Match has; nothing "
        "changed.",
        "ETag",
        at=True,
    )
    no_room = _problem("The service cannot keep the change; nothing changed.")
    no_store = _problem(
        "The store cannot be asked, and nothing changed; or, as the document then says, it was "
        "lost while the change was under way, and whether that was made is unknown.",
        "Retry-After",
    )
    not_at_hand = _problem(
        "The term there is being computed, or that has failed, and nothing changed; or of the "
        "store, as when one is created.",
        *("Retry-After", "Link"),
    )
    change = {"403": _CROSS_SITE, "404": unknown, "412": unmet, "503": not_at_hand, "507": no_room}
    unfit = _problem(f"Not a number of steps, or it leads beyond position {farthest}.")
    if_match = _header("If-Match", "Change it only if it is at this position.")
    conditions = (
        if_match,
        _header("If-None-Match", "Change it only if it is not at this position; `*` is any."),
    )
    by = _query("by", {"type": "integer", "minimum": 1, "maximum": farthest}, "How many steps.", 1)
    sequence_id = _in_path(
        "sequence_id",
        {"type": "string", "pattern": "^(shared|[0-9a-f]{32})$"},
        "`shared`, or the id of a sequence: a capability, for whoever knows it may change it.",
    )
    one = "/api1/sequences/{sequence_id}"
    return {
        "/api1/sequences": _path(
            "sequences",
            post=_operation(
                "Create a sequence at position 0",
                {
                    "201": _answer("The sequence.", "Location", *shown, content=sequence),
                    "403": _CROSS_SITE,
                    "422": _problem("A parameter, which this does not take."),
                    "503": no_store,
                    "507": _problem("There is no room for one more."),
                },
            ),
        ),
        one: _path(
            "sequences",
            sequence_id,
            get=_operation(
                "Show the sequence",
                {
                    "200": as_it_stands,
                    "304": _answer("It is where If-None-Match has it.", *shown),
                    "404": unknown,
                    "412": moved,
                    "422": _problem("A parameter, which this does not take."),
                    "503": not_at_hand,
                },
                if_match,
                _header("If-None-Match", "Show it only if it is at another position."),
            ),
            put=_operation(
                "Put the sequence at another position",
                {
                    "200": as_it_stands,
                    "400": _problem(
                        "The body is missing, a part (Content-Range), not JSON, or not as long as "
                        "stated."
                    ),
                    "411": _problem("The body is sent in chunks."),
                    "413": _problem(f"The body is longer than {MAX_BODY_BYTES} bytes."),
                    "415": _problem("The body is of another type than JSON."),
                    "422": _problem(f"Not a position from 0 to {farthest}."),
                    **change,
                },
                *conditions,
            )
            | {
                "requestBody": {
                    "required": True,
                    "content": {JSON: {"schema": _ref("schemas", "Position")}},
                }
            },
            delete=_operation(
                "Delete the sequence",
                {
                    "204": _answer("It is gone."),
                    "405": _problem("The shared sequence is not deleted.", "Allow"),
                    "422": _problem("A parameter, which this does not take."),
                    **change,
                    "503": no_store,
                },
                *conditions,
            ),
        ),
        f"{one}/next": _path(
            "sequences",
            sequence_id,
            post=_operation(
                "Step forward", {"200": as_it_stands, "422": unfit, **change}, by, *conditions
            ),
        ),
        f"{one}/previous": _path(
            "sequences",
            sequence_id,
            post=_operation(
                "Step back",
                {
                    "200": as_it_stands,
                    "409": _problem("That leads to before the start.", "ETag", at=True),
                    "422": unfit,
                    **change,
                },
                by,
                *conditions,
            ),
        ),
    }


def _term_paths(max_term: int) -> _Object:
    index = {"type": "integer", "minimum": -INLINE_LIMIT, "maximum": INLINE_LIMIT}
    kept = ("Cache-Control", "Vary")
    tagged = ("ETag", *kept)
    if_match = _header("If-Match", "Show it only if it has this tag.")
    if_none_match = _header("If-None-Match", "Show it only if it has another tag.")
    unacceptable = _problem("It is not to be had as Accept asks.")
    same = _answer("It has the tag that If-None-Match has.", *tagged)
    other = _problem("It has another tag than If-Match has.", "ETag")
    no_job = _problem("Nothing computes this.")
    digits = {"schema": {"type": "string"}}
    octets = {"schema": {"type": "string", "contentEncoding": "binary"}}
    in_full = {TEXT: digits, OCTETS: octets}
    term = {JSON: {"schema": {"anyOf": [_ref("schemas", "Term"), _ref("schemas", "Residue")]}}}
    term_index = _in_path(
        "n",
        {"type": "string", "pattern": "^(0|-?[1-9][0-9]*)$", "maxLength": MAX_INDEX_DIGITS + 1},
        f"The index, of at most {MAX_INDEX_DIGITS} digits; from {-max_term} to {max_term} where "
        f"the term is asked for in full, beyond {INLINE_LIMIT} either way in decimal only.",
    )
    return {
        "/api1/terms/{n}": _path(
            "terms",
            term_index,
            get=_operation(
                "Show F(n) exactly, or its residue",
                {
                    "200": _answer(
                        f"The term: its document; its digits; or ({OCTETS}) big-endian two's "
                        "complement. A residue has no ranges and is no octets.",
                        *("Accept-Ranges", *tagged),
                        content=term | in_full,
                    ),
                    "202": _answer(
                        "It is being computed; the location says how far that is.",
                        *("Location", "Retry-After", "Cache-Control"),
                        content={JSON: {"schema": _ref("schemas", "Job")}},
                    ),
                    "206": _answer(
                        "Some bytes of it.",
                        *("Accept-Ranges", "Content-Range", *tagged),
                        content={JSON: {}} | in_full,
                    ),
                    "304": same | {"headers": _headers("Accept-Ranges", *tagged)},
                    "406": unacceptable,
                    "412": other,
                    "416": _problem("The range begins behind the end.", "Content-Range"),
                    "422": _problem(
                        "Malformed, or beyond a limit that is named; the link leads to a summary.",
                        "Link",
                    ),
                    "503": _problem(
                        "Its computation has failed, or too many others wait.", "Retry-After"
                    ),
                },
                _query(
                    "base",
                    {"type": "integer", "minimum": BASES[0], "maximum": BASES[-1]},
                    "The base to write it in, with the digits 0-9a-z; above 36, 0-9A-Za-z. For a "
                    f"residue and as {OCTETS} the default only.",
                    10,
                ),
                _query(
                    "modulo",
                    {"type": "string", "pattern": "^[1-9][0-9]*$", "maxLength": MAX_MODULUS_DIGITS},
                    "Show the residue of F(n) modulo this instead. The digits of n times the "
                    f"digits of the modulus come to {MAX_RESIDUE_WORK} at most.",
                ),
                _header("Range", "A single range of bytes; anything else is ignored."),
                _header("If-Range", "Heed Range only if it has this tag."),
                if_match,
                if_none_match,
            ),
        ),
        "/api1/terms/{n}/job": _path(
            "terms",
            term_index,
            get=_operation(
                "Show how far the computation of a far term is",
                {
                    "200": _answer(
                        "How it stands, whichever server has told of it; one that is not known "
                        "here is begun. What has failed is tried again when the term is asked for "
                        "some seconds later.",
                        "Cache-Control",
                        content={JSON: {"schema": _ref("schemas", "Job")}},
                    ),
                    "404": _problem("It was cancelled here, or the term is given at once."),
                    "422": _problem(
                        "Malformed, or beyond a limit that is named; the link leads to a summary.",
                        "Link",
                    ),
                },
            ),
            delete=_operation(
                "Cancel it, for all who wait for it at this server",
                {
                    "204": _answer("It is cancelled; a finished term stays."),
                    "403": _CROSS_SITE,
                    "404": no_job,
                    "422": _problem("Malformed, or a parameter."),
                },
            ),
        ),
        "/api1/terms/{n}/summary": _path(
            "terms",
            term_index,
            get=_operation(
                "Say what F(n) is like, and what it would cost",
                {
                    "200": _answer(
                        "Digit count, first and last digits, and the length as octets.",
                        *tagged,
                        content={JSON: {"schema": _ref("schemas", "Summary")}},
                    ),
                    "304": same,
                    "406": unacceptable,
                    "412": other,
                    "422": _problem("Malformed, or beyond a limit that is named."),
                },
                _query(
                    "digits",
                    {"type": "integer", "minimum": 1, "maximum": MAX_ENDS},
                    "How many digits of either end.",
                    DEFAULT_ENDS,
                ),
                if_match,
                if_none_match,
            ),
        ),
        "/api1/terms": _path(
            "terms",
            get=_operation(
                "Show terms in a row, one a line",
                {
                    "200": _answer(
                        f"Lines: the digits, or a document each. At most {MAX_LINES} of them; the "
                        "link leads to those that follow.",
                        *(*kept, "Link"),
                        content={
                            TEXT: digits,
                            LINES_OF_JSON: {"schema": _ref("schemas", "Term")},
                        },
                    ),
                    "406": unacceptable,
                    "422": _problem("Malformed, or beyond a limit that is named."),
                    "503": _problem(
                        f"There are {MAX_STREAMS} such replies under way.", "Retry-After"
                    ),
                },
                _query("from", index, "The index of the first.", 0),
                _query(
                    "count",
                    {"type": "integer", "minimum": 1},
                    f"How many, up to F({INLINE_LIMIT}); without it, all.",
                ),
                _query(
                    "format",
                    {"enum": ["bfile"]},
                    "Write lines of index and term, as the b-files of the OEIS have them.",
                ),
            ),
            head=False,
        ),
    }


def _stepping_paths() -> _Object:
    content = {JSON: {"schema": _ref("schemas", "Stepped")}}
    cookie = {
        "name": "bigfib",
        "in": "cookie",
        "schema": {"type": "string"},
        "description": "With `--per-client`, the id of the client's own sequence.",
    }
    headers = ("Cache-Control", "Set-Cookie")
    term = _answer("The term.", *headers, content=content)
    at_start = _answer('At the start: the value is "-1".', *headers, content=content)
    no_room = _answer('No room to keep the step: the value is "-2".', *headers, content=content)
    not_at_hand = _answer(
        'The term is being computed, or the store is lost: the value is "-3".',
        *(*headers, "Retry-After"),
        content=content,
    )
    always = {"200": term, "503": not_at_hand}
    operations = {
        "current": ("Show the term", always),
        "next": ("Step forward", always | {"403": _CROSS_SITE, "507": no_room}),
        "previous": (
            "Step back",
            always | {"403": _CROSS_SITE, "409": at_start, "507": no_room},
        ),
    }
    return {
        f"/api0/{name}": _path(
            "stepping",
            cookie,
            get=_operation(summary, answers),
            head=name == "current",
            options=False,
        )
        for name, (summary, answers) in operations.items()
    }


def _page_paths() -> _Object:
    shown = ("ETag", "Cache-Control", *_PROTECTION)
    same = _answer("It has the tag that If-None-Match has.", *shown)
    if_none_match = _header("If-None-Match", "Show it only if it has another tag.")
    name = _in_path(
        "name",
        {"type": "string", "pattern": r"^[a-z]+\.(css|js|svg)$"},
        "The name of a style sheet, a script or a picture.",
    )
    parts = ("text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/svg+xml")
    return {
        "/": _path(
            "page",
            get=_operation(
                "Show the page",
                {
                    "200": _answer("HTML.", *shown, content={"text/html; charset=utf-8": {}}),
                    "304": same,
                },
                if_none_match,
            ),
        ),
        "/page/{name}": _path(
            "page",
            name,
            get=_operation(
                "Show what the page is made of",
                {
                    "200": _answer("The file.", *shown, content={part: {} for part in parts}),
                    "304": same,
                    "404": _problem("There is no such file."),
                },
                if_none_match,
            ),
        ),
    }


# --- How it is written -----------------------------------------------------------------------


def _path(
    tag: str, *parameters: _Object, head: bool = True, options: bool = True, **methods: _Object
) -> _Object:
    """Return what is at a path.

    Args:
        tag: What it belongs to.
        parameters: What all its methods take.
        head: Whether what can be got takes HEAD, too.
        options: Whether it takes OPTIONS.
        methods: The operations.
    """
    if head and "get" in methods:
        methods["head"] = _without_content(methods["get"])
    if options:
        methods["options"] = _operation(
            "Say what it takes", {"200": _answer("The header says it.", "Allow")}
        )
    path: _Object = {"parameters": list(parameters)} if parameters else {}
    return path | {method: {"tags": [tag]} | done for method, done in methods.items()}


def _operation(summary: str, answers: _Object, *parameters: _Object) -> _Object:
    always = {
        "400": {"description": "No HTTP, or more than 80 KiB before the body; the end."},
        "500": _problem("The service failed."),
    }
    return {
        "summary": summary,
        "parameters": list(parameters),
        "responses": dict(sorted((always | answers).items())),
    }


def _without_content(get: _Object) -> _Object:
    # A method other than GET has no ranges; and what is said without the body of a far term, needs
    # no computation.
    others = {"206", "416", "202", "503"} if "202" in get["responses"] else set()
    answers = {
        status: {name: part for name, part in answer.items() if name != "content"}
        for status, answer in get["responses"].items()
        if status not in others
    }
    return get | {"summary": f"{get['summary']}: the headers alone", "responses": answers}


def _answer(description: str, *headers: str, content: _Object | None = None) -> _Object:
    answer = {"description": description, "headers": _headers(*headers)}
    return answer | {"content": content} if content else answer


def _headers(*names: str) -> _Object:
    return {name: _ref("headers", name) for name in (*names, "Date", _NOSNIFF)}


def _problem(description: str, *headers: str, at: bool = False) -> _Object:
    """Return an error, whose document says ``at`` which position the sequence is, or does not."""
    schema = _ref("schemas", "ProblemWithPosition" if at else "Problem")
    return _answer(
        description, "Cache-Control", *headers, content={problems.MEDIA_TYPE: {"schema": schema}}
    )


def _with_text(problem: _Object) -> _Object:
    """Return an error that is told in lines of text to who asks for them."""
    return problem | {"content": problem["content"] | _TEXT_CONTENT}


def _in_path(name: str, schema: _Object, description: str) -> _Object:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": schema,
        "description": description,
    }


def _query(name: str, schema: _Object, description: str, default: int | None = None) -> _Object:
    if default is not None:
        schema = schema | {"default": default}
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, description: str) -> _Object:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": description}


def _ref(kind: str, name: str) -> _Object:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(**properties: _Object) -> _Object:
    return {"type": "object", "required": list(properties), "properties": properties}


_NOSNIFF: Final = "X-Content-Type-Options"
_CROSS_SITE: Final = _problem("A page of another site asks for it; see Sec-Fetch-Site.")

_INDEX: Final = {"type": "string", "pattern": "^(0|-?[1-9][0-9]*)$"}
_WHOLE: Final = {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"}
_DIGITS: Final = {"type": "string", "pattern": "^-?[0-9A-Za-z]+$"}
_TEXT_CONTENT: Final = {f"{TEXT}; charset=utf-8": {"schema": {"type": "string"}}}
_VERBOSE: Final = _query("verbose", {"type": "string"}, "Given at all: a line for each check.")

_JOB: Final = _object(
    n=_INDEX,
    state={"enum": [state.value for state in State]},
    progress={"type": "number", "minimum": 0, "maximum": 1},
)
_JOB["properties"]["failure"] = {"type": "string", "description": "Why, if it has failed."}

_PROBLEM: Final = _object(
    type={"const": "about:blank"},
    title={"type": "string"},
    status={"type": "integer", "minimum": 400, "maximum": 599},
    detail={"type": "string", "description": "What is wrong, and what to do about it."},
)

_SEQUENCE_ID: Final = {"type": "string", "pattern": "^(shared|[0-9a-f]{32})$"}
_TERM: Final = _object(n=_INDEX, digits=_WHOLE, value=_DIGITS)
_TERM["properties"]["base"] = _WHOLE | {"description": "There if it was asked for."}

_SCHEMAS: Final = {
    "Position": _object(position=_WHOLE),
    "Sequence": _object(id=_SEQUENCE_ID, position=_WHOLE, digits=_WHOLE, value=_WHOLE),
    "Term": _TERM,
    "Job": _JOB,
    "Residue": _object(n=_INDEX, modulo=_WHOLE, residue=_WHOLE),
    "Summary": _object(
        n=_INDEX,
        digits=_WHOLE | {"description": "How many there are."},
        leading=_DIGITS | {"description": "The first digits, behind the sign."},
        trailing=_DIGITS | {"description": "The last digits."},
        bytes=_WHOLE | {"description": "How many the term has as octets."},
    ),
    "Stepped": _object(
        value={"type": "string", "pattern": "^(-[123]|0|[1-9][0-9]*)$"},
        status={"type": "string", "pattern": "^[0-9]{3}$"},
    ),
    "Problem": _PROBLEM,
    "ProblemWithPosition": {
        "allOf": [_ref("schemas", "Problem"), _object(position=_WHOLE)],
        "description": "A problem that says where the sequence stands.",
    },
}

_PROTECTION: Final = ("Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options")

_HEADERS: Final = {
    name: {
        "description": description,
        "required": name not in {"Accept-Ranges", "Link", "Retry-After", "Set-Cookie", _NOSNIFF},
        "schema": {"type": "string"} | schema,
    }
    for name, description, schema in (
        ("Accept-Ranges", "That ranges are had of it.", {"const": "bytes"}),
        ("Allow", "The methods that it takes.", {}),
        ("Cache-Control", "How long it may be kept.", {}),
        ("Content-Range", "Which bytes of how many.", {}),
        ("Content-Security-Policy", "What a browser may do with it.", {"const": POLICY}),
        ("Date", "When this was sent.", {}),
        ("ETag", "Its version; of a sequence, the position.", {"pattern": '^"[^"]*"$'}),
        ("Link", "What follows, or says more.", {}),
        ("Location", "Where it is.", {}),
        ("Referrer-Policy", "Whom a browser tells where it was.", {"const": "no-referrer"}),
        ("Retry-After", "Seconds to wait.", {"pattern": "^[0-9]+$"}),
        ("Set-Cookie", "With `--per-client`, the id of a new sequence.", {}),
        (_NOSNIFF, "Outside `/api0`, and on its errors.", {"const": "nosniff"}),
        ("Vary", "What the choice of the representation goes by.", {"const": "Accept"}),
        ("X-Content-Type-Options", "It is what its type says.", {"const": "nosniff"}),
    )
}
