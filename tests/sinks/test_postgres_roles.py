"""Two roles of one PostgreSQL server: one may create tables where the other pulls, and plants them."""

from __future__ import annotations

import asyncio

import pytest

from servetel_async.errors import OutputError
from servetel_async.sinks.databases.postgres import PostgresSink
from servetel_async.sinks.sink import PullIdentity
from tests.sinks.life import open_for
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

asyncpg = pytest.importorskip("asyncpg")

CLAIM = PullIdentity("a", "s", "p")
SETUP = (
    "DROP DATABASE IF EXISTS roles WITH (FORCE)",
    "DROP ROLE IF EXISTS victim",
    "DROP ROLE IF EXISTS attacker",
    "CREATE ROLE victim LOGIN PASSWORD 'v'",
    "CREATE ROLE attacker LOGIN PASSWORD 'a'",
    "CREATE DATABASE roles",
)


@pytest.fixture
def say(postgres_server):  # noqa: F811
    """Run statements as a role, in the shared database."""

    async def run(address, statements):
        connection = await asyncpg.connect(address)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    def address(role):
        if role is None:
            return postgres_server.address("roles")
        return f"postgresql://{role}:{role[0]}@127.0.0.1:{postgres_server.port}/roles"

    asyncio.run(run(postgres_server.address(), SETUP))
    asyncio.run(run(address(None), ["GRANT CREATE, USAGE ON SCHEMA public TO victim, attacker"]))
    return lambda role, *statements: asyncio.run(run(address(role), statements)) if statements else address(role)


def made(say, role):
    """Let a role pull, so that the tables exist."""
    sink = PostgresSink(say(role))
    open_for(sink, CLAIM)
    sink.abandon()


TRAP = (
    "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'run as %', current_user; END $$",
    "CREATE TRIGGER trap BEFORE INSERT ON servetel_pulls FOR EACH ROW EXECUTE FUNCTION trap()",
)
PLANTED = {
    "a table": ((), "belongs to another role.*ALTER TABLE .* OWNER TO victim"),
    "a table with a trigger": (TRAP, "belongs to another role"),
    "a table with a rule": (
        ("CREATE RULE quiet AS ON INSERT TO call_records DO INSTEAD NOTHING",),
        "belongs to another role",
    ),
    "a table with row security": (
        ("ALTER TABLE call_records ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON call_records USING (false)"),
        "belongs to another role",
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_table_that_another_role_planted_is_refused(what, say):
    """It has our name and columns, and is writable; the error says what its owner has to do."""
    statements, why = PLANTED[what]
    made(say, "attacker")
    grants = [f"GRANT ALL ON {each} TO victim" for each in ("call_records", "servetel_pulls", "servetel_ledger")]
    say("attacker", *statements, *grants)
    for use in (lambda sink: open_for(sink, CLAIM), lambda sink: sink.look()):
        sink = PostgresSink(say("victim"))
        try:
            with pytest.raises(OutputError, match=why):
                use(sink)
        finally:
            sink.abandon()


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        (
            ("GRANT TRIGGER ON servetel_pulls TO attacker", *(f"SET ROLE attacker; {each}" for each in TRAP)),
            "trigger of another role.*DROP TRIGGER trap",
        ),
        (("CREATE RULE quiet AS ON INSERT TO call_records DO INSTEAD NOTHING",), "has a rule.*DROP RULE quiet"),
        (("ALTER TABLE servetel_ledger ENABLE ROW LEVEL SECURITY",), "row level security.*DISABLE ROW LEVEL SECURITY"),
    ],
    ids=["a trigger", "a rule", "row security"],
)
def test_code_of_others_on_a_table_of_ours_is_refused(statements, why, say):
    """Another role's trigger would run with the rights of the pulling role; a rule or policy hides calls."""
    made(say, "victim")
    say(None, "GRANT attacker TO victim" if "SET ROLE" in statements[-1] else "SELECT 1")
    say("victim", *statements)
    say(None, "REVOKE attacker FROM victim")
    with pytest.raises(OutputError, match=why):
        open_for(PostgresSink(say("victim")), CLAIM)


def test_a_superuser_takes_no_table_of_another_role(say):
    """A superuser may act as each role, but no role may act through a superuser."""
    made(say, "attacker")
    with pytest.raises(OutputError, match="belongs to another role"):
        open_for(PostgresSink(say(None)), CLAIM)


def test_a_role_takes_the_tables_of_its_group(say):
    """Tables of a role that it is a member of count as its own."""
    made(say, "victim")
    say(None, "GRANT victim TO attacker")
    sink = PostgresSink(say("attacker"))
    open_for(sink, CLAIM)
    sink.abandon()


def test_a_function_in_another_schema_of_the_path_is_not_called(say):
    """Only the schema with the tables is searched, after the system's own."""
    say(None, "CREATE SCHEMA AUTHORIZATION victim", "ALTER ROLE victim SET search_path = public, victim")
    sink = PostgresSink(say("victim"))
    open_for(sink, CLAIM)
    try:
        assert sink._do(sink._connection.fetchval("SHOW search_path")) == "public"
    finally:
        sink.abandon()
