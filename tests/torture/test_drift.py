"""Lists that change while they are streamed: each call that stays comes once, or the stream raises an error."""

from __future__ import annotations

from collections import Counter

import pytest

from servetel_async import CountDriftError, Retry, ServetelClient
from servetel_async.emulator import Dataset, Emulator
from tests.torture.report import SEED, TORTURE, measured

SEEDS = range(SEED, SEED + (40 if TORTURE else 3))
CALLS, SIZE = 1_000, 20
DAY = ("2024-05-06", "2024-05-06")
#: How the list changes, and whether the stream may raise.
MOVES = {
    "new calls": {"insert_every": 7},
    "late calls": {"late_every": 11},
    "deletions": {"delete_every": 13},
    "seconds in another order each time": {"shuffle_ties": True},
    "new and late calls": {"insert_every": 7, "late_every": 11},
    "new calls in another order each time": {"insert_every": 9, "shuffle_ties": True},
    "deletions in another order each time": {"delete_every": 17, "shuffle_ties": True},
    "counts of the page": {"count_mode": "page", "insert_every": 7},
    "no counts, late calls": {"count_mode": "missing", "late_every": 17},
}

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


async def streamed(seed, habits, ordered):
    """The ids that came, those that stayed from beginning to end, and whether the stream ended well."""
    dataset = Dataset.range("2024-05-06 09:00:00", "2024-05-06 09:09:59", calls=CALLS, seed=seed)
    async with (
        Emulator(dataset, seed=seed, **habits) as api,
        ServetelClient(
            api.token, base_url=api.base_url, rate=None, page_size=SIZE, retry=Retry(attempts=2, base=0.001)
        ) as client,
    ):
        window = {"from_date": f"{DAY[0]} 00:00:00", "to_date": f"{DAY[1]} 23:59:59"}
        before = set(api.truth(window))
        came, said = [], False
        try:
            async for call in client.calls(*DAY, ordered=ordered):
                came.append(call.id)
        except CountDriftError:
            said = True
        return came, before & set(api.truth(window)), said


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "as they come"])
@pytest.mark.parametrize("move", MOVES)
async def test_what_stays_comes_once(move, ordered):
    """Of the calls that stay, 0 are lost and 0 come twice; if that cannot be known, an error says so."""
    lost = twice = refused = 0
    for seed in SEEDS:
        came, stayed, said = await streamed(seed, MOVES[move], ordered)
        twice += sum(times - 1 for times in Counter(came).values())
        refused += said
        lost += 0 if said else len(stayed - set(came))
    measured(
        "P13",
        f"{move}: {len(SEEDS) * CALLS:,} calls, {lost} lost, {twice} twice, {refused} said that it cannot be sure",
        seeds=f"{SEEDS[0]} to {SEEDS[-1]}",
    )
    assert (lost, twice) == (0, 0)
