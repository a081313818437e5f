"""A table that changes while it is read."""

import pytest

from servetel_async.emulator import Dataset


async def test_an_inserted_call_is_the_newest(emulate, ask, dataset):
    """An inserted call is served first, and the dataset is unchanged."""
    api = await emulate(dataset)
    new = api.insert()
    assert (await ask.ids(api))[0] == new
    assert await ask.ids(api, page=2) == dataset.ids[19:39]
    assert api.truth() == [new, *dataset.ids]
    assert len(dataset) == 400


async def test_a_call_may_be_inserted_anywhere_with_any_content(emulate, ask, dataset):
    """An inserted call is ordered by its start, and filters use its given keys."""
    api = await emulate(dataset)
    new = api.insert("2024-05-06 12:00:00", client_number="+910000000001", circle=7)
    [record] = (await ask.page(api, callerid="+910000000001"))["results"]
    assert (record["id"], record["date"], record["time"], record["circle"]) == (new, "2024-05-06", "12:00:00", 7)


async def test_a_late_call_is_old_with_a_young_id(emulate, dataset):
    """A late call starts in the middle of the table, and its id says that it was written last."""
    api = await emulate(dataset)
    late = api.insert_late()
    assert 0 < api.truth().index(late) < 400
    assert late[:8] > max(id_[:8] for id_ in dataset.ids)
    there = api.insert_late("2024-05-06 09:00:00")
    assert there in api.truth(from_date="2024-05-06 09:00:00", to_date="2024-05-06 09:00:00")


async def test_a_deleted_call_is_gone(emulate, ask, dataset):
    """The rows behind a deleted call move up; an unknown call cannot be deleted."""
    api = await emulate(dataset)
    api.delete(dataset.ids[0])
    assert await ask.ids(api) == dataset.ids[1:21]
    with pytest.raises(KeyError):
        api.delete(dataset.ids[0])


async def test_calls_come_in_while_pages_are_read(emulate, ask, dataset):
    """A call is inserted before every second page, so a row repeats at the page edge."""
    api = await emulate(dataset, insert_every=2)
    first = await ask.page(api)
    second = await ask.page(api, page=2)
    assert (first["count"], second["count"]) == (400, 401)
    assert first["results"][-1] == second["results"][0]


async def test_late_calls_appear_inside_what_is_asked_for(emulate, ask, dataset):
    """Late calls appear inside a window that ended in the past."""
    api = await emulate(dataset, late_every=1)
    window = {"from_date": "2024-05-06 09:00:00", "to_date": "2024-05-06 18:00:00"}
    before = set(api.truth(window))
    await ask(api, window)
    assert len(set(api.truth(window)) - before) == 1


async def test_calls_disappear_while_pages_are_read(emulate, ask, dataset):
    """Before every page one of the requested calls is deleted."""
    api = await emulate(dataset, delete_every=1)
    assert [(await ask.page(api, page=n))["count"] for n in (1, 2, 3)] == [399, 398, 397]


async def test_an_empty_table_can_be_filled(emulate, ask):
    """An account without calls can get calls."""
    api = await emulate(Dataset.range("2024-05-06", "2024-05-06", calls=0), late_every=1, delete_every=1)
    assert (await ask.page(api))["results"] == []
    late, new = api.insert_late(), api.insert()
    assert set(api.truth()) == {late, new}


async def test_ties_are_shuffled_across_page_edges(emulate, ask):
    """On a static table, pages of tied rows lose some and repeat others; the tied second alone is whole."""
    tied = Dataset.range("2024-05-06 10:00:00", "2024-05-06 10:00:01", calls=60)
    api = await emulate(tied, shuffle_ties=True)
    rows = [row for page in range(1, 7) for row in await ask.ids(api, page=page, limit=10)]
    assert len(rows) == 60
    assert set(rows) < set(tied.ids)
    page = await ask.page(api, limit=60)
    assert sorted(r["id"] for r in page["results"]) == sorted(tied.ids)
    starts = [r["time"] for r in page["results"]]
    assert starts == sorted(starts, reverse=True)


async def test_equal_seeds_give_equal_lives(emulate, ask, dataset):
    """Equal seeds repeat all changes of a table."""
    knobs = {"insert_every": 2, "late_every": 3, "delete_every": 2, "shuffle_ties": True, "seed": 5}
    lives = []
    for _ in range(2):
        api = await emulate(dataset, **knobs)
        lives.append([await ask.ids(api, page=n) for n in range(1, 9)])
    assert lives[0] == lives[1]
