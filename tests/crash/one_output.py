"""Write one window into a destination, as a process of its own, and print the result as JSON.

``test_file_systems.py`` runs it under strace or in a namespace; the arguments are destinations.
"""

from __future__ import annotations

import json
import logging
import sys

from servetel_async import OutputError
from servetel_async.protocol.clock import IST
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.sink import Batch, PullIdentity, Span

SPAN = Span("2024-05-01 00:00:00", "2024-05-01 23:59:59")
CALL = b'{"id":"1","date":"2024-05-01","time":"10:00:00"}'


def write(destination):
    """Return the error's class and its text, or nothing."""
    sink = sink_for(destination)
    try:
        sink.open()
        sink.resume(PullIdentity("pull", "scope", "account"))
        sink.begin(b"{}")
        sink.commit(Batch([CALL], IST), SPAN, b"{}")
        sink.finish(lambda _: b'{"destination":"a"}')
    except OutputError as error:
        return [type(error).__name__, str(error)]
    finally:
        sink.abandon()
    return []


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    sys.stdout.write(json.dumps([write(each) for each in sys.argv[1:]]))
