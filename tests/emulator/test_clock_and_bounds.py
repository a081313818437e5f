"""How a server reads the dates of a query, and what time it says it is."""

import pytest

from servetel_async.emulator import Dataset, Emulator, Fault

FIRST, LAST = "2024-05-06 10:00:00", "2024-05-06 10:00:02"


@pytest.mark.parametrize(
    ("bounds", "seconds"),
    [("inclusive", [2, 1, 0]), ("end_exclusive", [1, 0]), ("start_exclusive", [2, 1])],
)
async def test_a_bound_may_be_left_out(emulate, ask, bounds, seconds):
    """The calls of the second that is left out are neither served nor counted, and `truth` agrees."""
    api = await emulate(Dataset.range(FIRST, LAST, calls=0), bounds=bounds)
    made = [api.insert(f"2024-05-06 10:00:0{second}") for second in range(3)]
    page = await ask.page(api, from_date=FIRST, to_date=LAST)
    expected = [made[second] for second in seconds]
    assert [record["id"] for record in page["results"]] == expected == api.truth(from_date=FIRST, to_date=LAST)
    assert page["count"] == len(seconds)


@pytest.mark.parametrize("bounds", ["end_exclusive", "start_exclusive"])
async def test_a_range_of_one_second_is_empty_where_a_bound_is_left_out(emulate, ask, bounds):
    """Nothing lies between a second and itself."""
    api = await emulate(Dataset.range(FIRST, FIRST, calls=5), bounds=bounds)
    page = await ask.page(api, from_date=FIRST, to_date=FIRST)
    assert (page["count"], page["results"]) == (0, [])


async def date_of(ask, api, path="/v1/call/records"):
    url = f"{api.base_url}{path}"
    async with ask.session.get(url, headers={"Authorization": f"Bearer {api.token}"}) as reply:
        return reply.headers.getall("Date")


async def test_the_date_header_shows_the_clock_that_was_set(emulate, ask, dataset):
    """The wall clock of India, written in GMT; once, and with refusals too."""
    api = await emulate(dataset, now="2024-05-08 05:29:59")
    assert await date_of(ask, api) == await date_of(ask, api, "/nowhere") == ["Tue, 07 May 2024 23:59:59 GMT"]


async def test_the_clock_may_go_on(emulate, ask, dataset):
    """A function is asked anew for each answer."""
    times = iter(["2024-05-08 12:00:00", "2024-05-08 12:00:01"])
    api = await emulate(dataset, now=lambda: next(times))
    assert [(await date_of(ask, api))[0][17:25] for _ in range(2)] == ["06:30:00", "06:30:01"]


async def test_a_fault_may_bring_another_date(emulate, ask, dataset):
    """Its headers are those that are sent."""
    wrong = Fault("status", status=500, headers={"Date": "some day"})
    api = await emulate(dataset, now="2024-05-08 12:00:00", faults=[wrong])
    assert await date_of(ask, api) == ["some day"]


def test_a_clock_that_cannot_be_read_is_an_error(dataset):
    """Said at once, not at the first request."""
    with pytest.raises(ValueError, match="format"):
        Emulator(dataset, now="yesterday")
