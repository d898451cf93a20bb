"""``python -m bigfib``."""

import sys

from bigfib.cli import main

sys.exit(main())
