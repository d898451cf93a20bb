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
    # The imports take a while, in which a Ctrl-C must not show a traceback. A shell starts a
    # background command with SIGINT ignored, which then stays so.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Nothing that is imported is garbage; looking for it takes a tenth of a short command.
    gc.disable()
    _import_gmpy2()
    from bigfib.cli.main import main

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, handler)
    return main()


def _import_gmpy2() -> None:
    """Import gmpy2 without the modules by which it looks up its own version, which is then empty.

    For ``gmpy2.__version__`` gmpy2 2.3 imports importlib.metadata, and with that email, socket and
    zipfile. Measured: 17 of the 88 ms of CPU time that ``bigfib current`` takes.
    """
    if _METADATA in sys.modules:
        return
    stand_in: Any = ModuleType(_METADATA)
    stand_in.version = lambda _package: ""
    sys.modules[_METADATA] = importlib.metadata = stand_in
    try:
        import gmpy2  # noqa: F401
    finally:
        # Whoever needs the real one imports it.
        del sys.modules[_METADATA], importlib.metadata


if __name__ == "__main__":
    sys.exit(main())
