"""Refuse requests before a resource sees them, whatever they ask for."""

from typing import Final

import falcon

from bigfib.api.problems import Problem

CROSS_SITE: Final = "cross-site"
"""``Sec-Fetch-Site`` of a request that a page of another site has made a browser send."""

_SAFE: Final = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Refuse two kinds of requests.

    **Bodies in chunks**: bjoern gives them to nobody, and takes their trailers for headers.

    **Changes that a page of another site makes a browser ask for**: such a page needs only an image
    with the address of ``/api0/next``, and could step sequences that only its visitors can reach.
    Browsers send where a request comes from (W3C, Fetch Metadata Request Headers); a client that
    does not is no browser, or an old one.
    """

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Refuse a body in chunks, before any header counts.

        Raises:
            Problem: 411.
        """
        if req.get_header("Transfer-Encoding") is not None:
            raise Problem(411, "Send the body with a Content-Length, not in chunks.")

    def process_resource(self, req: falcon.Request, *_: object) -> None:
        """Refuse a change; called once the route is known, so that the refusal is counted there.

        Raises:
            Problem: 403.
        """
        refuse_other_sites(req)


def refuse_other_sites(req: falcon.Request, *, changes: bool = False) -> None:
    """Refuse a request that a page of another site has caused, unless it is safe.

    Args:
        req: The request.
        changes: Whether even a GET changes something at its path.

    Raises:
        Problem: 403.
    """
    if req.get_header("Sec-Fetch-Site") == CROSS_SITE and (changes or req.method not in _SAFE):
        raise Problem(
            403,
            "Cross-site requests may not change state (Sec-Fetch-Site): a page of another site has "
            "sent this one. Open this address itself, or use a client that is not a browser.",
        )
