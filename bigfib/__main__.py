"""Run the command ``bigfib``, also as ``python -m bigfib``."""

import gc
import importlib
import signal
import sys
from types import ModuleType
from typing import Any, Final

_METADATA: Final = "importlib.metadata"


def main() -> int:
    """Run the command line and return its exit status."""
    # The imports take a while, and a Ctrl-C meanwhile must not show a traceback. A shell starts a
    # background command with SIGINT ignored; keep it ignored.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imports leave no garbage; looking for it would take a tenth of the time of a short command.
    gc.disable()
    _import_gmpy2()
    from bigfib.cli.main import main

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, handler)
    return main()


def _import_gmpy2() -> None:
    """Import gmpy2 without importlib.metadata, by which it looks up its version (empty without).

    gmpy2 2.3 imports it for ``gmpy2.__version__`` only, and with it email, socket and zipfile. This
    takes 17 of the 88 ms of CPU time that ``bigfib current`` takes.
    """
    if _METADATA in sys.modules:
        return
    stand_in: Any = ModuleType(_METADATA)
    stand_in.version = lambda _package: ""
    sys.modules[_METADATA] = importlib.metadata = stand_in
    try:
        import gmpy2  # noqa: F401
    finally:
        # Other modules import the real one.
        del sys.modules[_METADATA], importlib.metadata


if __name__ == "__main__":
    sys.exit(main())
