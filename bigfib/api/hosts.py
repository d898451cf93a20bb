"""Know the names by which the service may be addressed, against DNS rebinding.

A page can have its own name resolve to the address of this service. Its requests are then of the
same site to the browser, which lets it read and step; but their ``Host`` has the page's name.
"""

import ipaddress
from typing import Final

_ANY: Final = "*"

# More values of Host, or longer ones, are looked up each time.
_MOST_KEPT: Final = 100
_LONGEST_KEPT: Final = 300


class Hosts(dict[str, bool]):
    """Map each value of ``Host`` to whether it is allowed; a dictionary costs a request least.

    An address, ``localhost`` and names below it need no look-up in the DNS, so that no page can
    have them, and are always allowed. So is no ``Host``, which only old clients send.
    """

    def __init__(self, names: str = _ANY) -> None:
        """Allow the ``names``, which are separated by commas; ``*`` is any."""
        super().__init__()
        self._names = {*names.lower().split(",")}

    def __missing__(self, host: str) -> bool:
        is_allowed = _ANY in self._names or self._allows(host)
        if is_allowed and len(host) <= _LONGEST_KEPT and len(self) < _MOST_KEPT:
            self[host] = True
        return is_allowed

    def _allows(self, host: str) -> bool:
        if host.startswith("["):
            name = host[1:].partition("]")[0]
        else:
            name = host.partition(":")[0].lower().removesuffix(".")
        if name in ("", "localhost", *self._names) or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
