"""A client prints nothing on standard error, however its loop, its thread, its process or its last reference ends.

Each script runs in development mode with warnings as errors. Its server runs in the test, so that no thread of the
script keeps its globals alive to the end.
"""

from __future__ import annotations

import asyncio
import textwrap

import pytest

from tests.tls import serving
from tests.transport.test_session import script, silent
from tests.transport.wire_server import ACTS, OK, WireServer

#: A loop that is closed by hand: nothing ends its tasks, its generators or its connections.
BY_HAND = """
def by_hand(work):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()

async def half_read():
    stream = client.calls(page_size=1)
    asking = asyncio.ensure_future(anext(stream))
    await asyncio.wait({asking}, timeout=0.1)
    asking.cancel()
    await asyncio.wait({asking})
    return stream
"""
SCRIPTS = {
    "a client in a global, its loop closed by hand": "by_hand(one())",
    "a client that is collected after its loop": """
        by_hand(one())
        del client
        import gc; gc.collect()
    """,
    "a client that is collected while its loop runs": """
        async def main():
            global client
            await one()
            del client
            import gc; gc.collect()
        asyncio.run(main())
    """,
    "a client that is collected between two runs of its loop": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(one())
        del client
        import gc; gc.collect()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
    """,
    "a client that is collected before its loop is closed by hand": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(one())
        del client
        import gc; gc.collect()
        loop.close()
    """,
    "asyncio.run with an open client": "asyncio.run(one())",
    "a stream that is half read, its loop closed by hand": "kept = by_hand(half_read())",
    "a stream that is half read and collected": """
        kept = by_hand(half_read())
        del client
        import gc; gc.collect()
        del kept
        gc.collect()
    """,
    "a stream that is closed in another loop": """
        kept = by_hand(half_read())
        asyncio.run(kept.aclose())
        asyncio.run(client.aclose())
    """,
    "a loop of a thread": """
        thread = threading.Thread(target=lambda: by_hand(one()))
        thread.start()
        thread.join()
    """,
    "a loop that runs on in a daemon thread": """
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(one(), loop).result()
    """,
    "a client that is collected in another thread than its loop's": """
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(one(), loop).result()
        del client
        import gc; gc.collect()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    """,
    "SystemExit out of a loop": """
        async def main():
            await one()
            raise SystemExit(0)
        with contextlib.suppress(SystemExit):
            asyncio.run(main())
    """,
    "a forked child that exits": """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(one())
        child = os.fork()
        if child == 0:
            asyncio.run(one())
            loop.close()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        loop.run_until_complete(one())
        loop.close()
    """,
}
each_script = pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)


async def run(server: WireServer, text: str, **environment: str) -> str:
    whole = BY_HAND + textwrap.dedent(text) + "\nprint('end')"
    return silent(await asyncio.to_thread(script, whole, SERVER_URL=server.url, **environment))


@each_script
async def test_nothing_is_printed_at_the_end(text, serve):
    """Nothing is printed for idle connections that are left open."""
    server = await serve(OK)

    assert (await run(server, text)).strip() == "end"


@pytest.mark.parametrize("act", ["head hangs", "body hangs"])
@pytest.mark.parametrize("name", [name for name in SCRIPTS if "half read" in name or "another loop" in name])
async def test_nothing_is_printed_where_requests_are_under_way(name, act, serve):
    """Nothing is printed for a task that waits for a reply in a loop that was closed by hand."""
    server = await serve(ACTS[act])

    assert (await run(server, SCRIPTS[name])).strip() == "end"


@pytest.mark.parametrize("name", ["a client in a global, its loop closed by hand", "asyncio.run with an open client"])
async def test_nothing_is_printed_of_connections_with_tls(name, serve, authority, tmp_path):
    """Neither of the two transports of a TLS connection prints a warning."""
    server = await serve(OK, tls=serving(authority.issue_cert("127.0.0.1")))
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))

    assert (await run(server, SCRIPTS[name], SSL_CERT_FILE=str(file))).strip() == "end"


async def test_loops_closed_by_hand_leave_no_connection_behind(serve):
    """Each new session drops those of closed loops, so a process that makes many loops keeps no descriptor."""
    text = """
    for _ in range(20):
        by_hand(one())
    print(len(os.listdir("/proc/self/fd")) < 15)
    """
    server = await serve(OK)

    assert (await run(server, text)).split() == ["True", "end"]
