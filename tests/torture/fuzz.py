"""A fuzz target: replies, journals, receipts, facts and checkpoints of any bytes give values or errors of ours.

``python -m tests.torture.fuzz CORPUS --seconds 600`` plays inputs and keeps in CORPUS each one with a new result. With
atheris installed it is guided by the branches that an input takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import hashlib
import importlib.util
import re
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import msgspec

from servetel_async import CallQuery, ServetelClient, ServetelError
from servetel_async.bulk.ledger import read_fact
from servetel_async.bulk.receipt import read_receipt
from servetel_async.emulator import Dataset, Emulator
from servetel_async.protocol.checkpoint import Checkpoint
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.rows import records_of, rows_of
from servetel_async.protocol.verdict import OK, Unacceptable, judge
from servetel_async.sinks.files.journal import Journal, Line
from tests.torture.mutated_pages import BASES, DAMAGE

MONTH = CallQuery(from_date="2024-05-01", to_date="2024-05-31")


def reply(data):
    """The first line is the status and the charset, the rest is the body."""
    head, _, body = data.partition(b"\n")
    digits = re.search(rb"\d{3}", head)
    status = 200 if digits is None else min(max(int(digits[0]), 100), 599)
    answer = Reply(status, body, {"content-type": head.decode("latin-1"), "retry-after": head[:40].decode("latin-1")})
    verdict = judge(answer, 0.0)
    if verdict is not OK:
        return verdict.error
    read = PageReader().read(answer, 0.0)
    read.open()
    read.records()
    records_of([row.line for row in rows_of(PageReader().read(answer, 0.0)) if row.reason is None])
    return None


def journal(data):
    """A file of which every byte may be wrong."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.ndjson.part.journal"
        path.write_bytes(data)
        path.chmod(0o600)
        opened = Journal.open(path)
        if opened is not None:
            opened.close()


def receipt(data):
    """The bytes of ``DEST.receipt.json``."""
    str(read_receipt(data, "a.ndjson"))  # and its text for people


def fact(data):
    """A line of the ledger."""
    read_fact(data)


@functools.cache
def _fingerprint():
    """The fingerprint of the query of the checkpoints."""
    return seeds()[checkpoint][0].decode().split("|")[1]


def checkpoint(data):
    """A checkpoint that a caller kept of a stream."""
    Checkpoint.read(data.decode("utf-8", "surrogateescape"), _fingerprint())


TARGETS = (reply, journal, receipt, fact, checkpoint)


async def _real_files(directory):
    """A journal of an interrupted pull, the receipt of a whole one, and a checkpoint of a stream."""

    def stop(progress):
        if progress.windows:
            raise StopError

    async with (
        Emulator(Dataset.month("2024-05", calls=60)) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=10) as client,
    ):
        stream = client.calls(query=MONTH)
        await anext(stream)
        await client.pull(directory / "a.ndjson", query=MONTH)
        with contextlib.suppress(StopError):
            await client.pull(directory / "b.ndjson", query=MONTH, on_progress=stop)
    kept = (directory / "b.ndjson.part.journal").read_bytes()
    return kept, (directory / "a.ndjson.receipt.json").read_bytes(), stream.checkpoint.encode()


class StopError(Exception):
    """An error that a program raises to end a pull."""


@functools.cache
def seeds():
    """Valid inputs of each target."""
    with tempfile.TemporaryDirectory() as directory:
        kept, done, text = asyncio.run(_real_files(Path(directory)))
    lines = [msgspec.json.decode(line[9:], type=Line) for line in kept.splitlines()]
    return {
        reply: [b"200 application/json\n" + body for body in BASES],
        journal: [kept],
        receipt: [done],
        fact: [bytes(line.body) for line in lines if line.kind == "window"],
        checkpoint: [text],
    }


def play(data):
    """Play one input: its first byte chooses the target. Returns the result, to find new ones."""
    target = TARGETS[data[0] % len(TARGETS)] if data else reply
    try:
        error = target(data[1:])
    except Unacceptable as refusal:
        error = refusal.verdict.error
    except (ServetelError, FileNotFoundError) as refused:
        error = refused
    return target.__name__, type(error).__name__, re.sub(r"[\d.]+|\'.*", "", str(error))[:60]


def inputs(dice, corpus):
    """Endless damaged seeds and damaged inputs of the corpus."""
    given = [bytes([index]) + seed for index, target in enumerate(TARGETS) for seed in seeds()[target]]
    kept = [file.read_bytes() for file in sorted(corpus.iterdir())] if corpus is not None else []
    while True:
        data = dice.choice(dice.choice((given, kept or given)))
        for _ in range(dice.choice((1, 1, 2, 5))):
            data = data[:1] + DAMAGE[dice.choice(list(DAMAGE))](data[1:] or b" ", dice)
        yield data, kept


def main():
    """Play until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("atheris") is not None:
        import atheris

        with atheris.instrument_imports():
            atheris.Setup([sys.argv[0], str(options.corpus), f"-max_total_time={int(options.seconds)}"], play)
            atheris.Fuzz()
        return
    number, ends, end = 0, set(), time.monotonic() + options.seconds
    for data, kept in inputs(Random(time.time_ns()), options.corpus):
        if time.monotonic() > end:
            break
        number += 1
        found = play(data)
        if found not in ends:
            ends.add(found)
            kept.append(data)
            name = hashlib.sha256(data).hexdigest()[:16]
            with contextlib.suppress(FileExistsError), (options.corpus / name).open("xb") as file:
                file.write(data)
    sys.stdout.write(f"{number:,} inputs, {len(ends)} different ends, {len(kept)} inputs in the corpus\n")


if __name__ == "__main__":
    main()
