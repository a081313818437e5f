"""``python -m servetel_async``: the same as ``servetel``."""

import sys

from servetel_async.cli import main

sys.exit(main())
