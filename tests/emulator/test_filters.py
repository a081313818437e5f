"""Every query parameter over HTTP, compared with the parsed records."""

import pytest
from yarl import URL


def stamp(record):
    return f"{record['date']} {record['time']}"


def steps(record, kind, key="id"):
    return {step.get(key) for step in record["call_flow"] if step.get("type") == kind}


FILTERS = {
    "from_date": ([("from_date", "2024-05-07 10:00:00")], lambda r: stamp(r) >= "2024-05-07 10:00:00"),
    "to_date": ([("to_date", "2024-05-06 15:00:00")], lambda r: stamp(r) <= "2024-05-06 15:00:00"),
    "answered": ([("call_type", "c")], lambda r: r["status"] == "answered"),
    "missed": ([("call_type", "m")], lambda r: r["status"] == "missed"),
    "inbound": ([("direction", "inbound")], lambda r: r["direction"] == "inbound"),
    "outbound": ([("direction", "outbound")], lambda r: r["direction"] == "outbound"),
    "longer": ([("duration", "60"), ("operator", ">")], lambda r: r["call_duration"] > 60),
    "shorter": ([("duration", "60"), ("operator", "<")], lambda r: r["call_duration"] < 60),
    "at least": ([("duration", "60"), ("operator", ">=")], lambda r: r["call_duration"] >= 60),
    "at most": ([("duration", "60"), ("operator", "<=")], lambda r: r["call_duration"] <= 60),
    "not": ([("duration", "30"), ("operator", "!=")], lambda r: r["call_duration"] != 30),
    "exactly": ([("duration", "30")], lambda r: r["call_duration"] == 30),
    "service": ([("services", "agent")], lambda r: r["service"] == "Agent"),
    "services": ([("services", "Dialer,IVR")], lambda r: {"Dialer", "IVR"} & set(r["service"].split(","))),
    "broadcast": ([("broadcast", "true")], lambda r: r["broadcast_id"] is not None),
    "no broadcast": ([("broadcast", "0")], lambda r: r["broadcast_id"] is None),
    "both": (
        [("direction", "outbound"), ("call_type", "m"), ("from_date", "2024-05-07 00:00:00")],
        lambda r: r["direction"] == "outbound" and r["status"] == "missed" and r["date"] == "2024-05-07",
    ),
    "unknown": ([("start_date", "2024-05-07 00:00:00"), ("client_number", "1")], lambda _: True),
    "empty": ([("direction", ""), ("from_date", "")], lambda _: True),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_a_filter_returns_exactly_what_it_names(emulate, ask, dataset, name):
    """A filter returns exactly the matching records, newest first, and `truth` agrees."""
    query, says_so = FILTERS[name]
    api = await emulate(dataset)
    expected = [record["id"] for record in dataset.records() if says_so(record)]
    assert expected, "a filter that matches nothing tests nothing"
    assert await ask.ids(api, query, limit=1000) == expected == api.truth(dict(query))


async def test_date_bounds_are_inclusive(emulate, ask, dataset):
    """A call that starts in the second of both bounds is returned."""
    api = await emulate(dataset)
    record = next(dataset.records())
    assert record["id"] in await ask.ids(api, from_date=stamp(record), to_date=stamp(record))


@pytest.mark.parametrize(
    "encode", ["agents[]={0}&agents[]={1}", "agents={0}&agents={1}", "agents[0]={0}&agents[1]={1}", "agents={0},{1}"]
)
@pytest.mark.parametrize("prefix", ["agent%7C", "agent%7C%7C", ""])
async def test_agents_are_understood_in_every_encoding(emulate, ask, dataset, encode, prefix):
    """Agents are accepted with brackets, repetition, indices or commas, and one bar, two or none."""
    api = await emulate(dataset)
    wanted = [agent.id for agent in dataset.centre.agents[:2]]
    query = encode.format(*(prefix + agent for agent in wanted))
    url = URL(f"{api.base_url}/v1/call/records?limit=1000&{query}", encoded=True)
    async with ask.session.get(url, headers={"Authorization": f"Bearer {api.token}"}) as reply:
        rows = (await reply.json())["results"]
    names = {agent.name for agent in dataset.centre.agents[:2]}
    assert [row["id"] for row in rows] == [r["id"] for r in dataset.records() if r["agent_name"] in names]


async def test_departments_and_menus_are_filtered_by_id(emulate, ask, dataset):
    """Departments and menus are arrays of ids, encoded like agents."""
    api = await emulate(dataset)
    department, ivr = dataset.centre.departments[0], dataset.centre.ivrs[0]
    by_department = await ask.ids(api, {"department[]": department.id}, limit=1000)
    by_ivr = await ask.ids(api, {"ivr[]": ivr.id}, limit=1000)
    assert by_department == [r["id"] for r in dataset.records() if department.id in steps(r, "Department")]
    assert by_ivr == [r["id"] for r in dataset.records() if ivr.id in steps(r, "IVR")]


async def test_numbers_are_filtered(emulate, ask, dataset):
    """Calls are filtered by the client's number, by our number, and by our number for inbound calls only."""
    api = await emulate(dataset)
    client = next(dataset.records())["client_number"]
    did = dataset.centre.numbers[0]
    records = list(dataset.records())
    assert await ask.ids(api, callerid=client, limit=1000) == [r["id"] for r in records if r["client_number"] == client]
    assert await ask.ids(api, did_number=did, limit=1000) == [r["id"] for r in records if r["did_number"] == did]
    assert await ask.ids(api, destination=did, limit=1000) == [
        r["id"] for r in records if r["did_number"] == did and r["direction"] == "inbound"
    ]


async def test_a_plus_sign_that_was_not_escaped_matches_nothing(emulate, ask, dataset):
    """An unescaped plus sign matches nothing, because it means a space."""
    api = await emulate(dataset)
    client = next(dataset.records())["client_number"]
    url = URL(f"{api.base_url}/v1/call/records?callerid={client}", encoded=True)
    async with ask.session.get(url, headers={"Authorization": f"Bearer {api.token}"}) as reply:
        assert (await reply.json())["results"] == []


async def test_a_call_is_found_by_its_call_id(emulate, ask, dataset):
    """A `call_id` returns one record."""
    api = await emulate(dataset)
    record = list(dataset.records())[123]
    assert await ask.ids(api, call_id=record["call_id"]) == [record["id"]]


async def test_a_server_that_does_not_know_call_id_ignores_it(emulate, ask, dataset):
    """A server that does not know `call_id` returns the newest calls."""
    api = await emulate(dataset, knows_call_id=False)
    record = list(dataset.records())[123]
    assert await ask.ids(api, call_id=record["call_id"]) == dataset.ids[:20]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from_date", "2024-05-07"),
        ("to_date", "07-05-2024 00:00:00"),
        ("from_date", "2024-5-7 1:2:3"),
        ("page", "0"),
        ("page", "x"),
        ("limit", "-1"),
        ("limit", "9" * 5000),
        ("duration", "long"),
        ("operator", "~"),
    ],
)
async def test_a_malformed_parameter_is_refused(emulate, ask, dataset, name, value):
    """A malformed parameter is a 422 with the texts for the field."""
    status, body = await ask(await emulate(dataset), {name: value})
    assert status == 422
    assert body["success"] is False
    assert list(body["message"]) == [name]


async def test_a_long_range_is_refused_where_told_to(emulate, ask, dataset):
    """`max_range_days` bounds the distance of the two dates."""
    api = await emulate(dataset, max_range_days=31)
    assert (await ask(api, from_date="2024-04-01 00:00:00", to_date="2024-05-07 00:00:00"))[0] == 422
    assert (await ask(api, from_date="2024-05-01 00:00:00", to_date="2024-05-07 00:00:00"))[0] == 200
