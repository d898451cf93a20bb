"""Request sequences and terms from a service, for ``--url``.

Every function may raise `Failure`: the service refused (the message has its reason, and nothing has
changed), no bigfib answers at the address, or its answer is lost.
"""

import json
import re
import secrets
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

# The members of a sequence's document that commands show.
_SEQUENCE: Final = ("position", "digits", "value")

_NEXT: Final = re.compile(r"<([^>]+)>; rel=next")

_JSON: Final = {"Accept": "application/json"}

_HEALTH_TIMEOUT: Final = 5
"""Seconds without a byte after which a readiness check fails."""

# Seconds between two polls of a computation, at least and at most: it says how long it still takes.
_LEAST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_PIECE: Final = 1 << 16

_LATER: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

# How often a creation is sent before its answer is given up.
_ATTEMPTS: Final = 3

Document = dict[str, str]


class Refused(Failure):
    """The service refused; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unanswered(Failure):
    """The answer is lost, or it is to try again: it may be unknown whether anything has changed."""


def ready_version(url: str) -> str:
    """Return the version of the service at ``url``, which is ready for requests."""
    url = url.rstrip("/")
    with _answer(f"{url}/readyz", timeout=_HEALTH_TIMEOUT):
        pass
    with _answer(f"{url}/openapi.json", timeout=_HEALTH_TIMEOUT) as reply:
        return str(json.load(reply)["info"]["version"])


def sequence_address(url: str) -> str:
    """Return ``url`` if it is the address of a sequence; if not, append the shared sequence's."""
    url = url.rstrip("/")
    return url if f"{_SEQUENCES}/" in url else f"{url}{_SEQUENCES}/shared"


def current(address: str) -> Document:
    """Return the sequence at ``address``."""
    return _ask(address, *_SEQUENCE)


def step(address: str, way: str, by: str) -> Document:
    """Step the sequence at ``address`` (``way``: ``next`` or ``previous``) and return it."""
    query = "" if by == "1" else f"?{urlencode({'by': by})}"
    return _ask(f"{address}/{way}{query}", *_SEQUENCE, method="POST")


def seek(address: str, position: str) -> Document:
    """Move the sequence at ``address`` to ``position`` and return it."""
    body = json.dumps({"position": position}).encode()
    headers = {**_JSON, "Content-Type": "application/json"}
    return _ask(address, *_SEQUENCE, method="PUT", headers=headers, body=body)


def create(url: str) -> str:
    """Create a sequence at the service ``url`` and return the sequence's address.

    The id is chosen here, so that a creation whose answer is lost can be sent again.
    """
    address = f"{url.rstrip('/')}{_SEQUENCES}/{secrets.token_hex(16)}"
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_LONGEST_PAUSE)
        try:
            _ask(address, "id", method="PUT", headers={**_JSON, "If-None-Match": "*"})
        except Unanswered as error:
            unanswered = error
        except Refused as error:
            if error.status != HTTPStatus.PRECONDITION_FAILED:
                raise
            return address  # An earlier attempt has created it.
        else:
            return address
    raise unanswered


def delete(address: str) -> None:
    """Delete the sequence at ``address``."""
    if f"{_SEQUENCES}/" not in address:
        raise Failure(f"{address} is not the address of a sequence, which ends in its id")
    with _answer(address, "DELETE"):
        pass


def residue(url: str, n: str, modulo: str) -> Document:
    """Return F(n) modulo ``modulo`` from the service at ``url``."""
    return _ask(_term_address(url, n, modulo=modulo), "residue")


def summary(url: str, n: str) -> Document:
    """Return the summary of F(n) from the service at ``url``."""
    return _ask(f"{_term_address(url, n)}/summary", "digits")


def index(url: str, value: str) -> list[str]:
    """Return the indices of the terms with this value from the service at ``url``."""
    address = f"{url.rstrip('/')}/api1/index"
    headers = {**_JSON, "Content-Type": "text/plain"}
    with _answer(address, "POST", headers, value.encode()) as reply:
        found: list[str] = json.load(reply)["n"]
        return found


def progress(url: str, n: str, **parameters: str) -> Iterator[float]:
    """Have the service compute F(n); yield the share that is done until the term is ready.

    The ``parameters`` are those of ``GET /api1/terms/{n}``.
    """
    address = _term_address(url, n, **parameters)
    while True:
        # A request for one byte starts the computation, and shows whether the term is ready.
        with _answer(address, headers={"Accept": "text/plain", "Range": "bytes=0-0"}) as reply:
            if reply.status != HTTPStatus.ACCEPTED:
                return
            job = json.load(reply)
            done, left = float(job["progress"]), float(job["seconds_left"])
        yield done
        time.sleep(min(max(left, _LEAST_PAUSE), _LONGEST_PAUSE))


class NoLongerReady(Exception):
    """The service no longer has the term that was ready: wait for its `progress` again."""


def term(url: str, n: str, media_type: str, **parameters: str) -> Iterator[str]:
    """Yield F(n) in pieces, once `progress` has ended; arguments as for `progress`.

    Raises:
        NoLongerReady: The term is not ready; nothing was yielded.
    """
    with _answer(_term_address(url, n, **parameters), headers={"Accept": media_type}) as reply:
        if reply.status == HTTPStatus.ACCEPTED:
            raise NoLongerReady
        while piece := reply.read(_PIECE):
            yield piece.decode()
        if reply.length:
            raise IncompleteRead(b"", reply.length)


def lines(url: str, media_type: str, **parameters: str) -> Iterator[str]:
    """Yield a line for each consecutive term, following the links from reply to reply.

    The ``parameters`` are those of ``GET /api1/terms``.
    """
    address: str | None = f"{url.rstrip('/')}{_TERMS}?{urlencode(parameters)}"
    while address:
        with _answer(address, headers={"Accept": media_type}) as reply:
            for line in reply:
                yield line.decode().rstrip("\n")
            following = _NEXT.search(reply.headers.get("Link", ""))
        address = urljoin(address, following[1]) if following else None


def _term_address(url: str, n: str, **parameters: str) -> str:
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"{url.rstrip('/')}{_TERMS}/{n}{query}"


def _ask(
    address: str,
    *members: str,
    method: str = "GET",
    headers: dict[str, str] = _JSON,
    body: bytes | None = None,
) -> Document:
    """Return the document of the reply; a bigfib's has all these ``members``."""
    with _answer(address, method, headers, body) as reply:
        document: Document = json.load(reply)
        if any(member not in document for member in members):
            raise ValueError("its answer is not a bigfib's")
        return document


@contextmanager
def _answer(
    address: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = _TIMEOUT,
) -> Iterator[HTTPResponse]:
    if not address.startswith(("http://", "https://")):
        raise Failure(f"no bigfib answers at {address}: begin the address with http://")
    try:
        request = Request(address, body, headers or {}, method=method)  # noqa: S310 - see above
        with urlopen(request, timeout=timeout) as reply:  # noqa: S310
            yield reply
    except HTTPError as error:
        detail = _detail(error) or f"{address} answers {error.code} {error.reason}"
        if error.code in _LATER:
            raise Unanswered(detail) from error
        raise Refused(detail, error.code) from error
    except URLError as error:
        raise Failure(f"no bigfib answers at {address}: {error.reason}") from error
    except (OSError, HTTPException) as error:
        lost = f"the answer of {address} is lost: {error}"
        if method != "GET" and _SEQUENCES in address:
            lost += "; check with `current` whether it has changed"
        raise Unanswered(lost) from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Failure(f"no bigfib answers at {address}: {error}") from error


def _detail(error: HTTPError) -> str | None:
    """Return the detail of a problem document, or None if the body is not one."""
    try:
        return str(json.load(error)["detail"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return None
