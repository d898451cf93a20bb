"""Request sequences and terms from a service, for ``--url``.

Any program may answer at an address; replies that are not a bigfib's are refused.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urljoin
from urllib.request import Request, urlopen

from bigfib.cli.output import Failure

_TIMEOUT: Final = 60
"""Seconds without a byte after which a request fails."""

_SEQUENCES: Final = "/api1/sequences"
_TERMS: Final = "/api1/terms"

# The members of a sequence's document.
_SEQUENCE: Final = {"id", "position", "digits", "value"}

_NEXT: Final = re.compile(r"<([^>]+)>; rel=next")

_TEXT: Final = "text/plain"

# Seconds between two polls of a computation, which grow for terms that take longer.
_FIRST_PAUSE: Final = 0.05
_LAST_PAUSE: Final = 1.0

# More than the document of any job.
_LONGEST_JOB: Final = 1000

_PIECE: Final = 1 << 16

# Maximum length of a problem's detail in a message.
_SHOWN_DETAIL: Final = 500

Document = dict[str, str]


class Refused(Failure):
    """The service refused the request; the message is its own."""


class Unanswered(Failure):
    """There is no answer, or none of a bigfib; the message says from where, and why."""


def sequence_address(url: str) -> str:
    """Return ``url`` if it is the address of a sequence, or else that of the shared one there."""
    url = url.rstrip("/")
    return url if f"{_SEQUENCES}/" in url else f"{url}{_SEQUENCES}/shared"


def current(address: str) -> Document:
    """Return the sequence at ``address``.

    Raises (as do all functions here):
        Refused: The service refused; nothing has changed.
        Unanswered: No bigfib is there, or its answer is lost.
    """
    return _ask(address, _SEQUENCE)


def step(address: str, way: str, by: str) -> Document:
    """Step the sequence at ``address`` and return it.

    Args:
        address: The address of the sequence.
        way: ``next`` or ``previous``.
        by: The number of steps.
    """
    query = "" if by == "1" else f"?{urlencode({'by': by})}"
    return _ask(f"{address}/{way}{query}", _SEQUENCE, "POST")


def seek(address: str, position: str) -> Document:
    """Move the sequence at ``address`` to ``position`` and return it."""
    return _ask(address, _SEQUENCE, "PUT", json.dumps({"position": position}).encode())


def create(url: str) -> str:
    """Create a sequence at the service ``url`` and return the sequence's address."""
    collection = f"{url.rstrip('/')}{_SEQUENCES}"
    return f"{collection}/{_ask(collection, _SEQUENCE, 'POST')['id']}"


def delete(address: str) -> None:
    """Delete the sequence at ``address``.

    Raises:
        Refused: Also for an address that is not that of a sequence.
    """
    if f"{_SEQUENCES}/" not in address:
        raise Refused(f"{address} is not the address of a sequence, which ends in its id")
    with _answer(address, "DELETE") as reply:
        reply.read()


def residue(url: str, n: str, modulo: str) -> Document:
    """Return F(n) modulo ``modulo`` from the service at ``url``."""
    return _ask(f"{_term_address(url, n)}?{urlencode({'modulo': modulo})}", {"residue"})


def progress(url: str, n: str, **parameters: str) -> Iterator[float]:
    """Have the service compute F(n); yield the share that is done until the term is ready.

    Args:
        url: The address of the service.
        n: The index.
        parameters: Query parameters of ``GET /api1/terms/{n}``.
    """
    address = _term_address(url, n, **parameters)
    pause = _FIRST_PAUSE
    while True:
        # A request for one byte starts the computation, and shows whether the term is ready.
        with _answer(address, headers={"Accept": _TEXT, "Range": "bytes=0-0"}) as reply:
            if reply.status != HTTPStatus.ACCEPTED:
                return
            job = json.loads(reply.read(_LONGEST_JOB))
            yield float(job["progress"])
            longest = int(reply.headers["Retry-After"])
        time.sleep(min(pause, max(longest, 0)))
        pause = min(2 * pause, _LAST_PAUSE)


class NoLongerReady(Exception):
    """The service no longer has the term that was ready: wait for its `progress` again."""


def term(url: str, n: str, media_type: str, **parameters: str) -> Iterator[str]:
    """Yield F(n) in pieces, once `progress` has ended.

    Args:
        url: The address of the service.
        n: The index.
        media_type: ``text/plain`` for the digits, ``application/json`` for the document.
        parameters: Query parameters of ``GET /api1/terms/{n}``.

    Raises:
        NoLongerReady: The term is not ready; nothing was yielded.
    """
    with _answer(_term_address(url, n, **parameters), headers={"Accept": media_type}) as reply:
        if reply.status == HTTPStatus.ACCEPTED:
            raise NoLongerReady
        while piece := reply.read(_PIECE):
            yield _printable(piece.decode(), "a term")
        if reply.length:
            raise IncompleteRead(b"", reply.length)


def summary(url: str, n: str) -> Document:
    """Return the summary of F(n) from the service at ``url``."""
    return _ask(f"{_term_address(url, n)}/summary", {"digits", "leading", "trailing"})


def lines(url: str, media_type: str, **parameters: str) -> Iterator[str]:
    """Yield a line for each of consecutive terms, from as many replies as it takes.

    Args:
        url: The address of the service.
        media_type: The form of the lines.
        parameters: Query parameters of ``GET /api1/terms``.
    """
    address: str | None = f"{url.rstrip('/')}{_TERMS}?{urlencode(parameters)}"
    while address:
        with _answer(address, headers={"Accept": media_type}) as reply:
            for line in reply:
                yield _printable(line.decode().rstrip("\n"), "a row of terms")
            following = _NEXT.search(reply.headers.get("Link", ""))
        address = urljoin(address, following[1]) if following else None


def _term_address(url: str, n: str, **parameters: str) -> str:
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"{url.rstrip('/')}{_TERMS}/{n}{query}"


def _ask(
    address: str, members: set[str], method: str = "GET", body: bytes | None = None
) -> Document:
    """Return the document that answers the request, which has at least these members."""
    headers = {"Accept": "application/json"}
    if body:
        headers["Content-Type"] = "application/json"
    with _answer(address, method, headers, body) as reply:
        document: Document = json.loads(reply.read())
        if not members <= document.keys():
            raise ValueError("its answer is not a bigfib's")
        for member in document.values():
            _printable(member, "a bigfib's")
        return document


def _printable(text: str, what: str) -> str:
    """Return the text if a terminal may be given it.

    Raises:
        ValueError: It has control characters, or is empty.
    """
    if not (text and text.isprintable()):
        raise ValueError(f"its answer is not {what}")
    return text


@contextmanager
def _answer(
    address: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Iterator[HTTPResponse]:
    if not address.startswith(("http://", "https://")):
        raise Unanswered(f"no bigfib answers at {address}: begin the address with http://")
    try:
        request = Request(address, body, headers or {}, method=method)  # noqa: S310 - see above
        with urlopen(request, timeout=_TIMEOUT) as reply:  # noqa: S310
            yield reply
    except HTTPError as error:
        raise Refused(_detail(error) or f"{address} answers {error.code} {error.reason}") from error
    except URLError as error:
        raise Unanswered(f"no bigfib answers at {address}: {error.reason}") from error
    except (OSError, HTTPException) as error:
        lost = f"the answer of {address} is lost: {error}"
        if method != "GET":
            lost += "; whether it has changed, ask with `current`"
        raise Unanswered(lost) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unanswered(f"no bigfib answers at {address}: {error}") from error


def _detail(error: HTTPError) -> str | None:
    """Return the detail of a problem document, if it is printable."""
    try:
        detail = json.loads(error.read())["detail"]
    except (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return None
    return detail[:_SHOWN_DETAIL] if isinstance(detail, str) and detail.isprintable() else None
