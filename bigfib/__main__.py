"""Run the command ``bigfib``, also as ``python -m bigfib``."""

import gc
import signal
import sys


def main() -> int:
    """Run the command line and return its exit status."""
    # The imports take a while, in which a Ctrl-C must not show a traceback. A shell starts a
    # background command with SIGINT ignored, which then stays so.
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Nothing that is imported is garbage; looking for it takes a tenth of a short command.
    gc.disable()
    from bigfib.cli.main import main

    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, handler)
    return main()


if __name__ == "__main__":
    sys.exit(main())
