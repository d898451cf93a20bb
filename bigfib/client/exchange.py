"""Send requests to a service until they are answered, and turn its refusals into exceptions."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, InvalidURL
from typing import Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

JSON: Final = {"Accept": "application/json"}

FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 1.0
"""Seconds between two attempts, or two polls, at least and at most: between attempts the pause
doubles, and a poll comes when the term is expected."""

# Do not wait for a service that sends a longer Retry-After than these seconds.
_LONGEST_WAIT: Final = 5

_LATER: Final = (
    *(HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY),
    *(HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT),
)

_PROBLEM: Final = "urn:bigfib:problem:"

# Raised by parsing a document that is not a bigfib's.
_MALFORMED: Final = (ValueError, LookupError, TypeError, RecursionError)

_T = TypeVar("_T")


class ServiceError(RuntimeError):
    """The service has not done what it was asked; the message says why, in one line."""


class Unreachable(ServiceError):
    """No bigfib answers at the address; nothing has changed."""


class Unanswered(ServiceError):
    """The reply is lost, or says that the service cannot answer now.

    Attributes:
        is_unchanged: Whether the service has said that nothing has changed; otherwise that is
            unknown.
        retry_after: Seconds after which the service wants to be asked again, or None.
    """

    def __init__(
        self, message: str, *, is_unchanged: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.is_unchanged = is_unchanged
        self.retry_after = retry_after


class Refused(ServiceError):
    """The service has refused the request.

    Attributes:
        status: The HTTP status.
        kind: The kind of the problem, such as ``limit``; empty if it has none.
        in_doubt: Whether an earlier attempt, whose reply is lost, may have been made.
    """

    def __init__(self, message: str, status: int, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.in_doubt = False


class Moved(Refused):
    """The sequence is no longer where it was seen; nothing has changed."""


class Exchange:
    """Send requests to the service at ``url``; the arguments are those of `Client`."""

    def __init__(self, url: str, timeout: float, attempts: int) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._attempts = attempts

    def ask(
        self,
        method: str,
        path: str,
        read: Callable[[HTTPResponse], _T],
        headers: Mapping[str, str] = JSON,
        body: bytes | None = None,
    ) -> _T:
        """Send a request, safe to repeat, until it is answered; return what ``read`` returns."""

        def answer() -> Iterator[_T]:
            with self.reply(method, path, headers, body) as reply:
                found = read(reply)
            yield found

        return next(self.persist(answer))

    def persist(self, rest: Callable[[], Iterator[_T]]) -> Iterator[_T]:
        """Yield from ``rest()``, which is called again, for what is missing, if a reply is lost."""
        attempt, lost, in_doubt = 0, None, False
        while True:
            try:
                for piece in rest():
                    attempt = 0
                    yield piece
            except Unanswered as error:
                lost = error
                in_doubt |= not error.is_unchanged
            except Unreachable:
                # It may be restarting. This attempt has changed nothing, an earlier one may have.
                if not lost:
                    raise
            except Refused as error:
                error.in_doubt = in_doubt
                raise
            else:
                return
            attempt += 1
            pause = lost.retry_after or min(FIRST_PAUSE * 2**attempt, LAST_PAUSE)
            if attempt >= self._attempts or pause > _LONGEST_WAIT:
                raise lost
            time.sleep(pause)

    @contextmanager
    def reply(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Iterator[HTTPResponse]:
        """Send a request once; raise a `ServiceError` unless it succeeds."""
        address = f"{self.url}{path}"
        if not address.startswith(("http://", "https://")):
            raise Unreachable(f"no bigfib answers at {address}: begin the address with http://")
        try:
            request = Request(address, body, dict(headers), method=method)  # noqa: S310 - see above
            with urlopen(request, timeout=self._timeout) as reply:  # noqa: S310
                yield reply
        except HTTPError as error:
            raise _refusal(error, address) from error
        except URLError as error:
            raise Unreachable(f"no bigfib answers at {address}: {error.reason}") from error
        except (InvalidURL, *_MALFORMED) as error:
            raise Unreachable(f"no bigfib answers at {address}: {error}") from error
        except (OSError, HTTPException) as error:
            lost = f"the reply from {address} is lost: {error}"
            if method not in ("GET", "HEAD") and "/sequences" in path:
                lost += "; look at the sequence to see whether it has changed"
            raise Unanswered(lost) from error


def _refusal(error: HTTPError, address: str) -> ServiceError:
    """Return the error for a reply with a status of 400 or more."""
    try:
        problem = json.load(error)
        message, kind = str(problem["detail"]), str(problem.get("type", ""))
    except (OSError, HTTPException, *_MALFORMED):
        message, kind = f"{address} answers {error.code} {error.reason}", ""
    kind = kind.removeprefix(_PROBLEM)
    if error.code in _LATER:
        seconds = re.fullmatch("[0-9]{1,9}", error.headers.get("Retry-After", ""))
        retry_after = float(seconds[0]) if seconds else None
        # A proxy that limits requests answers these itself, without passing them on.
        is_unchanged = kind == "busy" or error.code == HTTPStatus.TOO_MANY_REQUESTS
        return Unanswered(message, is_unchanged=is_unchanged, retry_after=retry_after)
    refused = Moved if error.code == HTTPStatus.PRECONDITION_FAILED else Refused
    return refused(message, error.code, kind)
