"""The PostgreSQL tables that a pull may use: plain ones, of its own role, without code of other roles.

Any role that may create tables in the schema can plant one with the name of ours. Its triggers, rules or policies would
run with the rights of the role that pulls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Kinds of relations that are not tables, as ``pg_class.relkind`` spells them.
_OTHER_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index"}
#: Name and ``relkind`` of each relation that has one of these names.
KINDS = (
    "SELECT relname, relkind::text FROM pg_class "
    "WHERE relnamespace = current_schema()::regnamespace AND relname = ANY($1)"
)
# To a superuser every role is its own, so for one only superusers count.
_TRUSTED = (
    "(SELECT {0} = me.oid OR CASE WHEN me.rolsuper THEN them.rolsuper ELSE pg_has_role(me.oid, {0}, 'MEMBER') END "
    "FROM pg_roles AS me, pg_roles AS them WHERE me.rolname = current_user AND them.oid = {0})"
)
#: Foreign parts of the tables with these names: what is wrong, the table, and the SQL that fixes it.
FOREIGN_PARTS = f"""
WITH ours AS (
    SELECT oid, relname::text AS name, relowner, relrowsecurity FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relname = ANY($1)
)
SELECT 'belongs to another role', name, format('ALTER TABLE %I OWNER TO %I', name, current_user)
FROM ours WHERE NOT {_TRUSTED.format("relowner")}
UNION ALL
SELECT 'has row level security', name, format('ALTER TABLE %I DISABLE ROW LEVEL SECURITY', name)
FROM ours WHERE relrowsecurity
UNION ALL
SELECT 'has a trigger of another role', name, format('DROP TRIGGER %I ON %I', tgname, name)
FROM ours JOIN pg_trigger ON tgrelid = ours.oid JOIN pg_proc ON pg_proc.oid = tgfoid
WHERE NOT tgisinternal AND NOT {_TRUSTED.format("proowner")}
UNION ALL
SELECT 'has a rule', name, format('DROP RULE %I ON %I', rulename, name)
FROM ours JOIN pg_rewrite ON ev_class = ours.oid
"""  # noqa: S608 - no text of a caller or a server becomes SQL


def refuse_other_kinds(found: Sequence[tuple[str, str]], name: str) -> None:
    """Refuse a view, or anything else that is not a table, under the name of a table of ours.

    Args:
        found: name and ``relkind`` of each relation that has such a name.
        name: name of the database.

    Raises:
        OutputError: if there is such a relation.
    """
    for relation, kind in found:
        if kind in _OTHER_KINDS:
            raise OutputError(
                f"{name} holds {_OTHER_KINDS[kind]} {relation}",
                why="calls can only be written to a table",
                fix="rename it, or give another database or schema",
            )


def refuse_foreign_parts(found: Sequence[tuple[str, str, str]], name: str) -> None:
    """Refuse tables of ours that another role owns, or to which another role has added code.

    Args:
        found: what is wrong, the relation, and the SQL that fixes it.
        name: name of the database.

    Raises:
        OutputError: if there is such a table.
    """
    for what, relation, repair in found:
        raise OutputError(
            f"{name}: the table {relation} {what}",
            why="another role could run code with the rights of this one, or hide and change calls",
            fix=f"use a schema of your own, or let the owner say: {repair}",
        )
