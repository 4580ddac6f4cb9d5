# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a down script would drop, set aside in a schema of the run's own, with a manifest of what came from where.

It is all SQL, made beforehand from the catalogue, so that it can be shown before it runs.
"""
from __future__ import annotations

import re
from typing import Any, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils import down
from ansible_collections.marketsage.rollback.plugins.module_utils.down import Loss, Script, Statement
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.grammar import literal, quoted
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma import LEDGER

MANIFEST = "_rollback_manifest"
_PREFIX = "rollback_"
_LONGEST_NAME = 63
# Counting a table takes time in proportion to it, with everybody waiting; beyond this its estimate is taken.
_COUNTED_BYTES = 32 * 1024 * 1024
_CREATE_MANIFEST = """CREATE TABLE {manifest} (
  item integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL,
  from_schema text NOT NULL, from_table text NOT NULL, from_column text NOT NULL, key text[] NOT NULL,
  relation text NOT NULL, rows bigint, counted boolean NOT NULL DEFAULT true,
  archived_at timestamptz NOT NULL DEFAULT now(), restored_at timestamptz, restored_rows bigint
)"""

_KEY = """
SELECT array_agg(a.attname::text ORDER BY k.number)
FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, number)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL AND k.number <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary
HAVING bool_and(a.attnotnull AND a.attname <> ALL (%s)) ORDER BY i.indisprimary DESC LIMIT 1"""
_TABLES = """
SELECT DISTINCT n.nspname::text, t.relname::text
FROM unnest(%s::text[]) AS name JOIN pg_class c ON c.oid = to_regclass(name)
LEFT JOIN pg_index i ON i.indexrelid = c.oid
JOIN pg_class t ON t.oid = coalesce(i.indrelid, c.oid) JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE t.relkind IN ('r', 'p')"""
_FOREIGN_KEYS = """
SELECT c.conname::text, n.nspname::text, r.relname::text
FROM pg_constraint c JOIN pg_class r ON r.oid = c.confrelid JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE c.contype = 'f' AND c.conrelid = to_regclass(%s) ORDER BY 1"""
# What still needs something that was moved to the archive: PostgreSQL would have refused to drop it.
_DEPENDENTS = """
SELECT format('foreign key %%s of %%s', c.conname, c.conrelid::regclass)
FROM pg_constraint c JOIN pg_class r ON r.oid = c.confrelid JOIN pg_class t ON t.oid = c.conrelid
WHERE r.relnamespace = to_regnamespace(%(archive)s) AND t.relnamespace <> r.relnamespace
UNION SELECT format('view %%s', v.oid::regclass)
FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
JOIN pg_class v ON v.oid = w.ev_class JOIN pg_class r ON r.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass
WHERE r.relnamespace = to_regnamespace(%(archive)s) AND v.relnamespace <> r.relnamespace
UNION SELECT format('partition or heir %%s', i.inhrelid::regclass)
FROM pg_inherits i JOIN pg_class r ON r.oid = i.inhparent JOIN pg_class t ON t.oid = i.inhrelid
WHERE r.relnamespace = to_regnamespace(%(archive)s) AND t.relnamespace <> r.relnamespace
UNION SELECT format('column %%s of %%s', a.attname, t.oid::regclass)
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid JOIN pg_type y ON y.oid = a.atttypid
WHERE y.typnamespace = to_regnamespace(%(archive)s) AND t.relnamespace <> y.typnamespace
  AND t.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"""


def name_for(run_id: str) -> str:
    """The schema's name for a run's id; the date and the last digits stay where it would be too long.

    The run that is not there yet has a name that only shows what is to come.
    """
    name = _PREFIX + (re.sub(r"[^a-z0-9]", "_", run_id.lower()) or "<run>")
    return name if len(name) <= _LONGEST_NAME - 3 else f"{name[:_LONGEST_NAME - 8]}_{name[-4:]}"


def checked_name(value: str, parameter: str) -> str:
    if not re.fullmatch(_PREFIX + r"[a-z0-9_]{1,54}", value, re.ASCII):
        raise BadInput(f"{parameter}: {value!r} is not an archive, for example rollback_20261124t031500z_backend_3f9a")
    return value


def existing(cursor: Any, run_id: str = "") -> list[str]:
    """The archives in the database, oldest first, or those of one run."""
    cursor.execute(
        "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relname = %s AND starts_with(n.nspname, %s) ORDER BY c.oid",
        (MANIFEST, name_for(run_id) if run_id else _PREFIX),
    )
    return [row[0] for row in cursor.fetchall()]


def kept(cursor: Any) -> list[dict[str, Any]]:
    """Each archive with its name, how many things it has, and how many of them were never brought back."""
    found = []
    for name in existing(cursor):
        cursor.execute(
            f"SELECT count(*), count(*) FILTER (WHERE restored_at IS NULL) FROM {quoted(name, MANIFEST)}"
        )
        items, waiting = cursor.fetchone()
        found.append({"name": name, "items": items, "waiting": waiting})
    return found


def of_run(run_id: str, archives: list[dict[str, Any]], parameter: str) -> dict[str, Any]:
    """The newest archive of a run; BadInput, naming those there are, where it has none."""
    prefix = name_for(run_id)
    own = [each for each in archives if each["name"].startswith(prefix)]
    if not own:
        there = ", ".join(each["name"] for each in archives) or "none"
        raise BadInput(f"{parameter}: the database has no archive of run {run_id}; it has: {there}")
    return own[-1]


def next_name(cursor: Any, run_id: str) -> str:
    """A run that rolls back once more, after it went forward again, needs another archive."""
    earlier = len(existing(cursor, run_id))
    return f"{name_for(run_id)}_{earlier + 1}" if earlier else name_for(run_id)


class Catalogue:
    """What the live database says about the tables of a script."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def tables(self, relations: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those relations that exist, an index by its table."""
        self._cursor.execute(_TABLES, ([quoted(*name) for name in sorted(relations)],))
        return {(row[0], row[1]) for row in self._cursor.fetchall()}

    def key(self, table: tuple[str, str], without: list[str]) -> list[str]:
        """The columns by which a row is found again once the columns `without` are gone."""
        self._cursor.execute(_KEY, (quoted(*table), without))
        row = self._cursor.fetchone()
        if row is None:
            name = quoted(*table)
            raise Refused(
                f"{name} has no primary key, or it goes too: values of {', '.join(without)} could not be put back",
                f"Give {name} a primary key first, or check in a down.sql that keeps the column.",
            )
        key: list[str] = row[0]
        return key

    def foreign_keys(self, table: tuple[str, str]) -> list[tuple[str, tuple[str, str]]]:
        """Of a table: their names and the tables they point to."""
        self._cursor.execute(_FOREIGN_KEYS, (quoted(*table),))
        return [(name, (schema, target)) for name, schema, target in self._cursor.fetchall()]

    def rows_at_risk(self, losses: list[Loss]) -> list[dict[str, Any]]:
        return [self._at_risk(loss) for loss in losses if loss.kind not in (down.TYPE, down.SEQUENCE)]

    def _at_risk(self, loss: Loss) -> dict[str, Any]:
        what = f"count({quoted(loss.column)})" if loss.column else "count(*)"
        where = f" WHERE {_uses_other_values(loss)}" if loss.kind == down.VALUES else ""
        table = quoted(loss.schema, loss.name)
        self._cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))
        rows = 0
        if self._cursor.fetchone()[0]:
            self._cursor.execute(f"SELECT {what} FROM {table}{where}")
            rows = self._cursor.fetchone()[0]
        return {"kind": loss.kind, "table": f"{loss.schema}.{loss.name}", "column": loss.column or None, "rows": rows}


class Plan(NamedTuple):
    """SQL in the order in which it runs, and the tables that are locked before it does."""

    sql: list[str]
    tables: list[tuple[str, str]]


def plan(catalogue: Catalogue, script: Script, archive: str, ledger_schema: str, undone: list[str]) -> Plan:
    """Archive, script and ledger as one list of SQL."""
    manifest = quoted(archive, MANIFEST)
    begin = [f"CREATE SCHEMA {quoted(archive)}", _CREATE_MANIFEST.format(manifest=manifest)]
    pointed_at: set[tuple[str, str]] = set()
    body: list[str] = []
    for statement in script.statements:
        if statement.moved:
            for loss in statement.losses:
                body += _moved(catalogue, loss, archive)
                pointed_at.update(target for _key, target in catalogue.foreign_keys((loss.schema, loss.name)))
        else:
            body.append(statement.sql)
    sql = [*begin, *_copies(catalogue, script.statements, archive), *body, *_ledger(ledger_schema, undone, archive)]
    return Plan(sql, sorted(catalogue.tables(script.relations | pointed_at)))


def _copies(catalogue: Catalogue, statements: list[Statement], archive: str) -> list[str]:
    """Columns are copied before the script begins, while they have the names by which a later release asks for them."""
    columns: dict[tuple[str, str], list[Loss]] = {}
    values: list[Loss] = []
    for loss in (each for statement in statements for each in statement.losses):
        if loss.kind == down.VALUES:
            values.append(loss)
        elif loss.column and loss not in columns.setdefault((loss.schema, loss.name), []):
            columns[(loss.schema, loss.name)].append(loss)
    sql: list[str] = []
    for table, losses in columns.items():
        sql += _copied_columns(catalogue, table, losses, archive)
    for loss in values:
        sql += _copied_values(catalogue, loss, archive)
    # An ALTER TABLE is refused while checks of the rows just changed are still to come.
    return [*sql, "SET CONSTRAINTS ALL IMMEDIATE"] if values else sql


def _copied_columns(catalogue: Catalogue, table: tuple[str, str], losses: list[Loss], archive: str) -> list[str]:
    key = catalogue.key(table, [loss.column for loss in losses if loss.kind == down.COLUMN])
    relation = f"{table[1][:40]}_columns"
    names = dict.fromkeys([*key, *(loss.column for loss in losses)])
    columns = ", ".join(quoted(name) for name in names)
    return [
        f"CREATE TABLE {quoted(archive, relation)} AS SELECT {columns} FROM {quoted(*table)}",
        *(_listed(loss, key, relation, archive) for loss in losses),
    ]


def _copied_values(catalogue: Catalogue, loss: Loss, archive: str) -> list[str]:
    """Rows that use a value the older release does not know get the column's default, or NULL."""
    table = (loss.schema, loss.name)
    key = catalogue.key(table, [loss.column])
    relation = f"{loss.name[:20]}_{loss.column[:20]}_values"
    columns = ", ".join(quoted(name) for name in key)
    column, others = quoted(loss.column), _uses_other_values(loss)
    return [
        f"CREATE TABLE {quoted(archive, relation)} AS SELECT {columns}, {column}::text AS {column} "
        f"FROM {quoted(*table)} WHERE {others}",
        _listed(loss, key, relation, archive),
        f"UPDATE {quoted(*table)} SET {column} = DEFAULT WHERE {others}",
    ]


def _uses_other_values(loss: Loss) -> str:
    values = ", ".join(literal(value) for value in loss.kept_values)
    return f"{quoted(loss.column)}::text <> ALL (ARRAY[{values}]::text[])"


def _moved(catalogue: Catalogue, loss: Loss, archive: str) -> list[str]:
    """In place of a DROP: flat in cost, and the table's own indexes and sequences go along."""
    name = quoted(*loss.current)
    if loss.kind != down.TABLE:
        return [f"ALTER {loss.kind.upper()} {name} SET SCHEMA {quoted(archive)}"]
    if not catalogue.tables({(loss.schema, loss.name)}):
        return []  # DROP TABLE IF EXISTS
    here = quoted(archive, loss.current[1])
    # A row that was set aside must not forbid the live release to delete the row it points to.
    unlinked = [
        f"ALTER TABLE {here} DROP CONSTRAINT IF EXISTS {quoted(key)}"
        for key, _target in catalogue.foreign_keys((loss.schema, loss.name))
    ]
    listed = _listed(loss, [], loss.current[1], archive)
    return [f"ALTER TABLE {name} SET SCHEMA {quoted(archive)}", *unlinked, listed]


def _listed(loss: Loss, key: list[str], relation: str, archive: str) -> str:
    """Its line in the manifest."""
    here = quoted(archive, relation)
    is_small = f"pg_relation_size({literal(here)}) <= {_COUNTED_BYTES}" if loss.kind == down.TABLE else "true"
    estimate = f"(SELECT reltuples::bigint FROM pg_class WHERE oid = {literal(here)}::regclass)"
    names = ", ".join(literal(name) for name in (loss.kind, loss.schema, loss.name, loss.column))
    keys = ", ".join(literal(name) for name in key)
    return (
        f"INSERT INTO {quoted(archive, MANIFEST)} "
        "(kind, from_schema, from_table, from_column, key, relation, rows, counted) "
        f"SELECT {names}, ARRAY[{keys}]::text[], {literal(relation)}, "
        f"CASE WHEN small THEN (SELECT count(*) FROM {here}) ELSE {estimate} END, small "
        f"FROM (SELECT {is_small}) AS size(small)"
    )


def _ledger(schema: str, undone: list[str], archive: str) -> list[str]:
    ledger, copy = quoted(schema, LEDGER), quoted(archive, LEDGER)
    names = ", ".join(literal(name) for name in undone)
    return [
        f"CREATE TABLE {copy} AS SELECT * FROM {ledger} WHERE migration_name IN ({names})",
        f"DELETE FROM {ledger} WHERE migration_name IN ({names})",
    ]


def refuse_dependents(cursor: Any, archive: str) -> None:
    """Refused while something outside still needs what was moved: the transaction is then rolled back."""
    cursor.execute(_DEPENDENTS, {"archive": quoted(archive)})
    found = [row[0] for row in cursor.fetchall()]
    if found:
        raise Refused(f"the down script would drop what is still used by {', '.join(found)}; nothing was changed")


def contents(cursor: Any, archive: str) -> list[dict[str, Any]]:
    """What an archive holds, as its manifest says."""
    cursor.execute(
        f"SELECT kind, from_schema || '.' || from_table, nullif(from_column, ''), rows, counted, relation "
        f"FROM {quoted(archive, MANIFEST)} ORDER BY item"
    )
    names = ("kind", "table", "column", "rows", "counted", "relation")
    return [dict(zip(names, row)) for row in cursor.fetchall()]
