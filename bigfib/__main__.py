"""``python -m bigfib``, and the command ``bigfib``."""

import signal
import sys

from bigfib.parent import handle


def main() -> int:
    """Run the command line and return its exit status."""
    # To import all that it needs takes a while, in which a Ctrl-C ends it without a traceback.
    handle(signal.SIG_DFL, signal.SIGINT)
    from bigfib import cli

    handle(signal.default_int_handler, signal.SIGINT)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
