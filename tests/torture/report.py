"""The measurements of a promise's tests, and the size of the run.

``python -m tests.torture`` collects it into the table of promises; in the ordinary suite it is only in the output
of the test.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

#: The whole size: hours. Else the quick one, which the ordinary suite runs too. Read at import, because the suite's
#: own fixture removes these variables from the tests.
TORTURE = os.environ.get("SERVETEL_TORTURE", "") not in ("", "0")
#: All seeds of a run are derived from this one; the whole run draws a fresh one and prints it.
SEED = int(os.environ.get("SERVETEL_TORTURE_SEED", "1"))
_COLLECTED = os.environ.get("SERVETEL_TORTURE_REPORT")


def measured(promise: str, value: str, *, seeds: str = "") -> None:
    """Record a number.

    Args:
        promise: its number, such as ``"P1"``.
        value: the measurement, in the words and units of the promise.
        seeds: that it was measured with.
    """
    sys.stdout.write(f"{promise}: {value}\n")
    sys.stdout.flush()
    if _COLLECTED is not None:
        with Path(_COLLECTED).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"promise": promise, "value": value, "seeds": seeds}) + "\n")
