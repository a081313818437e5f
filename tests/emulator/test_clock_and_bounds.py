"""How a server reads the dates of a query, and the time of its `Date` header."""

import pytest

from servetel_async.emulator import Dataset, Emulator, Fault

FIRST, LAST = "2024-05-06 10:00:00", "2024-05-06 10:00:02"


@pytest.mark.parametrize(
    ("bounds", "seconds"),
    [("inclusive", [2, 1, 0]), ("end_exclusive", [1, 0]), ("start_exclusive", [2, 1])],
)
async def test_a_bound_may_be_left_out(emulate, ask, bounds, seconds):
    """The calls of an excluded bound are neither served nor counted, and `truth` agrees."""
    api = await emulate(Dataset.range(FIRST, LAST, calls=0), bounds=bounds)
    made = [api.insert(f"2024-05-06 10:00:0{second}") for second in range(3)]
    page = await ask.page(api, from_date=FIRST, to_date=LAST)
    expected = [made[second] for second in seconds]
    assert [record["id"] for record in page["results"]] == expected == api.truth(from_date=FIRST, to_date=LAST)
    assert page["count"] == len(seconds)


@pytest.mark.parametrize("bounds", ["end_exclusive", "start_exclusive"])
async def test_a_range_of_one_second_is_empty_where_a_bound_is_left_out(emulate, ask, bounds):
    """A range of one second is empty if a bound is excluded."""
    api = await emulate(Dataset.range(FIRST, FIRST, calls=5), bounds=bounds)
    page = await ask.page(api, from_date=FIRST, to_date=FIRST)
    assert (page["count"], page["results"]) == (0, [])


@pytest.mark.parametrize("filed_by", ["start", "end", "insertion"])
async def test_calls_are_filed_under_one_of_their_moments(emulate, ask, filed_by):
    """A range holds the calls whose moment lies in it, newest first by that moment; `truth` agrees."""
    api = await emulate(Dataset.range("2024-05-06", "2024-05-06", calls=200), filed_by=filed_by)
    first, last = "2024-05-06 11:00:00", "2024-05-06 12:00:00"
    page = await ask.page(api, from_date=first, to_date=last, limit=200)
    ids = [record["id"] for record in page["results"]]
    assert 0 < len(ids) < 200
    assert ids == api.truth(from_date=first, to_date=last)

    def moment(record):
        inserted = api.dataset.clock.stamp(int(record["id"][:8], 16))
        return {"start": f"{record['date']} {record['time']}", "end": record["end_stamp"], "insertion": inserted}[
            filed_by
        ]

    moments = {record["id"]: moment(record) for record in api.dataset.records()}
    assert {key for key, at in moments.items() if first <= at <= last} == set(ids)
    assert [moments[key] for key in ids] == sorted((moments[key] for key in ids), reverse=True)


async def test_the_order_may_be_another_one(emulate, ask):
    """Calls can be filtered by their end and listed by their start; the order shows ties too."""
    api = await emulate(Dataset.range("2024-05-06", "2024-05-06", calls=200), filed_by="end", order="start")
    first, last = "2024-05-06 11:00:00", "2024-05-06 12:00:00"
    page = await ask.page(api, from_date=first, to_date=last, limit=200)
    starts = [f"{record['date']} {record['time']}" for record in page["results"]]
    ends = [record["end_stamp"] for record in page["results"]]
    assert starts == sorted(starts, reverse=True)
    assert all(first <= end <= last for end in ends)
    assert ends != sorted(ends, reverse=True)


async def date_of(ask, api, path="/v1/call/records"):
    url = f"{api.base_url}{path}"
    async with ask.session.get(url, headers={"Authorization": f"Bearer {api.token}"}) as reply:
        return reply.headers.getall("Date")


async def test_the_date_header_shows_the_clock_that_was_set(emulate, ask, dataset):
    """The `Date` header shows the set clock in GMT, once, and in refusals too."""
    api = await emulate(dataset, now="2024-05-08 05:29:59")
    assert await date_of(ask, api) == await date_of(ask, api, "/nowhere") == ["Tue, 07 May 2024 23:59:59 GMT"]


async def test_the_clock_may_go_on(emulate, ask, dataset):
    """A clock that is a function is called for each reply."""
    times = iter(["2024-05-08 12:00:00", "2024-05-08 12:00:01"])
    api = await emulate(dataset, now=lambda: next(times))
    assert [(await date_of(ask, api))[0][17:25] for _ in range(2)] == ["06:30:00", "06:30:01"]


async def test_a_fault_may_bring_another_date(emulate, ask, dataset):
    """A fault's `Date` header replaces the usual one."""
    wrong = Fault("status", status=500, headers={"Date": "some day"})
    api = await emulate(dataset, now="2024-05-08 12:00:00", faults=[wrong])
    assert await date_of(ask, api) == ["some day"]


def test_a_clock_that_cannot_be_read_is_an_error(dataset):
    """An invalid clock is an error at once, not at the first request."""
    with pytest.raises(ValueError, match="format"):
        Emulator(dataset, now="yesterday")
