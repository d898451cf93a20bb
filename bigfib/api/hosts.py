"""Check the name by which a client addresses the service, to prevent DNS rebinding.

A page can have its own name resolve to the address of this service. To the browser, its requests
then go to the page's own site, so it may read and step; but their ``Host`` is the page's name.
"""

import ipaddress
from typing import Final

_ANY: Final = "*"

# Further values of Host, or longer ones, are checked again each time.
_MOST_KEPT: Final = 100
_LONGEST_KEPT: Final = 300


class Hosts(dict[str, bool]):
    """Map each value of ``Host`` to whether it is allowed; a dictionary is fastest.

    IP addresses, ``localhost`` and names below it are always allowed: they need no DNS look-up, so
    no page can take them. A request without ``Host``, which only old clients send, is allowed, too.
    """

    def __init__(self, names: str = _ANY) -> None:
        """Allow the ``names``, which are separated by commas; ``*`` allows any."""
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
