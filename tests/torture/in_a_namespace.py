"""A pull in a network of its own that loses packets: a process that ``test_network.py`` runs.

Takes a job as JSON and prints the result as JSON. The server and the client share the process and the loopback
device; the rules apply only to packets to and from the server's port.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from servetel_async import Retry, ServetelClient, ServetelError, Timeouts
from servetel_async.emulator import Dataset, Emulator

PORT = 8123


def change(commands):
    """Change the network."""
    for command in commands:
        subprocess.run(command.format(port=PORT).split(), check=True, capture_output=True)


async def disturb(api, job):
    """Change the network after a number of requests, and change it back after some seconds."""
    while len(api.requests) < job["after"]:
        await asyncio.sleep(0.001)
    change(job["during"])
    await asyncio.sleep(job["seconds"])
    change(["nft flush chain inet test packets"])


async def main(job):
    change(["ip link set lo up", "nft add table inet test"])
    chain = "add chain inet test packets { type filter hook input priority 0 ; }"
    subprocess.run(["nft", chain], check=True, capture_output=True)
    change(job.get("before", ()))
    dataset = Dataset.range("2024-05-06 09:00:00", "2024-05-06 18:59:59", calls=job["calls"])
    retry = Retry(attempts=job["attempts"], base=0.05, cap=0.2)
    events = Counter()
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "calls.ndjson"
        async with (
            Emulator(dataset, port=PORT) as api,
            ServetelClient(
                api.token,
                base_url=api.base_url,
                rate=None,
                page_size=50,
                retry=retry,
                timeouts=Timeouts(**job["timeouts"]),
                on_event=lambda event: events.update([event.error or "well"]),
            ) as client,
        ):
            disturbing = asyncio.create_task(disturb(api, job)) if "during" in job else None
            said = {"error": None}
            try:
                receipt = await client.pull(target, from_date="2024-05-06", to_date="2024-05-06")
                lines = sorted(target.read_bytes().splitlines())
                said["whole"] = receipt.complete and lines == sorted(call.body for call in dataset.calls)
            except ServetelError as error:
                said["error"] = type(error).__name__
            if disturbing is not None:
                await disturbing
            return said | {"requests": len(api.requests), "events": events}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
