# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Archived data back into tables and columns that are there again. Nothing that is newer is overwritten."""
from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils import down
from ansible_collections.marketsage.rollback.plugins.module_utils.archive import MANIFEST
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.grammar import literal, quoted
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

# Of the columns that the archive and the live table share: name, how the archived value is written for the live type.
_COLUMNS = """
SELECT l.attname::text,
  'a.' || quote_ident(l.attname) || CASE WHEN l.atttypid = a.atttypid THEN ''
    ELSE '::text::' || format_type(l.atttypid, l.atttypmod) END,
  coalesce((SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = l.attrelid AND adnum = l.attnum), 'NULL')
FROM pg_attribute l JOIN pg_attribute a ON a.attname = l.attname
WHERE l.attrelid = to_regclass(%s) AND a.attrelid = to_regclass(%s) AND l.attnum > 0 AND a.attnum > 0
  AND NOT l.attisdropped AND NOT a.attisdropped AND l.attgenerated = '' ORDER BY l.attnum"""
_FOREIGN_KEYS = """
SELECT c.confrelid::regclass::text, array_agg(f.attname::text ORDER BY k.n), array_agg(p.attname::text ORDER BY k.n)
FROM pg_constraint c CROSS JOIN LATERAL unnest(c.conkey, c.confkey) WITH ORDINALITY AS k(own, other, n)
JOIN pg_attribute f ON f.attrelid = c.conrelid AND f.attnum = k.own
JOIN pg_attribute p ON p.attrelid = c.confrelid AND p.attnum = k.other
WHERE c.contype = 'f' AND c.conrelid = to_regclass(%s) GROUP BY c.oid, c.confrelid"""
_SEQUENCES = """
SELECT attname::text, pg_get_serial_sequence(%s, attname)
FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
  AND pg_get_serial_sequence(%s, attname) IS NOT NULL"""
BEFORE = "restored before"
_KEPT_FOR_COMPARISON = "its value was converted; compare it with the archive"


class Item(NamedTuple):
    """A line of the manifest."""

    number: int
    kind: str
    schema: str
    table: str
    column: str
    key: list[str]
    relation: str
    restored_at: Any
    restored_rows: int | None

    @property
    def live(self) -> str:
        return quoted(self.schema, self.table)


class Column(NamedTuple):
    """A column that the archive and the live table share."""

    name: str
    archived: str
    default: str


def unrestored(cursor: Any, archive: str) -> list[Item]:
    """What an archive has that was not brought back yet; BadInput where there is no such archive."""
    return [item for item in _items(cursor, archive, "") if item.restored_at is None]


def refuse_homeless(cursor: Any, items: list[Item]) -> None:
    """Refused where none of the tables and columns is there."""
    cursor.execute(
        "SELECT bool_or(CASE WHEN name = '' THEN to_regclass(live) IS NOT NULL ELSE EXISTS (SELECT FROM pg_attribute "
        "WHERE attrelid = to_regclass(live) AND attname = name AND NOT attisdropped) END) "
        "FROM unnest(%s::text[], %s::text[]) AS item(live, name)",
        ([item.live for item in items], [item.column for item in items]),
    )
    if not cursor.fetchone()[0]:
        names = ", ".join(".".join(filter(None, (item.schema, item.table, item.column))) for item in items)
        raise Refused(
            f"restore_archive: the database has no place for {names}",
            "Ship a release whose migrations bring it back first.",
        )


def restore(cursor: Any, archive: str) -> list[dict[str, Any]]:
    """Bring back what can be; one report for each line of the manifest. What was brought back once is not again."""
    items = _items(cursor, archive, "FOR UPDATE")
    waiting = [item for item in items if item.restored_at is None]
    reports = {
        item.number: _report(cursor, archive, item, item.restored_rows or 0, BEFORE)
        for item in items
        if item.restored_at is not None
    }
    reports.update(_restore_tables(cursor, archive, [item for item in waiting if item.kind == down.TABLE]))
    by_relation: dict[str, list[Item]] = {}
    for item in waiting:
        if item.kind != down.TABLE:
            by_relation.setdefault(item.relation, []).append(item)
    for group in by_relation.values():
        reports.update(_guarded(cursor, archive, group, _restore_columns))
    return [reports[number] for number in sorted(reports)]


def _items(cursor: Any, archive: str, lock: str) -> list[Item]:
    manifest = quoted(archive, MANIFEST)
    cursor.execute("SELECT to_regclass(%s)", (manifest,))
    if cursor.fetchone()[0] is None:
        raise BadInput(f"restore_archive: the database has no archive {archive}; state status lists those there are")
    cursor.execute(
        "SELECT item, kind, from_schema, from_table, from_column, key, relation, restored_at, restored_rows "
        f"FROM {manifest} ORDER BY item {lock}"
    )
    return [Item(*row) for row in cursor.fetchall()]


def _guarded(
    cursor: Any, archive: str, items: list[Item], work: Callable[[Any, str, list[Item]], dict[int, dict[str, Any]]]
) -> dict[int, dict[str, Any]]:
    """What `work` reports; where the data does not fit, nothing of it is taken and the reason told."""
    psycopg = library("psycopg", "changing the database")
    try:
        with cursor.connection.transaction():
            return work(cursor, archive, items)
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        reason = " ".join(str(error.diag.message_primary).split())
    return {item.number: _report(cursor, archive, item, 0, reason) for item in items}


def _report(cursor: Any, archive: str, item: Item, restored: int, reason: str) -> dict[str, Any]:
    cursor.execute(f"SELECT count(*) FROM {quoted(archive, item.relation)}")
    rows = cursor.fetchone()[0]
    return {
        "kind": item.kind,
        "table": f"{item.schema}.{item.table}",
        "column": item.column or None,
        "rows": rows,
        "restored": restored,
        "reason": reason,
    }


def _mark(cursor: Any, archive: str, item: Item, restored: int) -> None:
    cursor.execute(
        f"UPDATE {quoted(archive, MANIFEST)} SET restored_at = now(), restored_rows = %s WHERE item = %s",
        (restored, item.number),
    )


def _columns(cursor: Any, archive: str, item: Item) -> dict[str, Column]:
    cursor.execute(_COLUMNS, (item.live, quoted(archive, item.relation)))
    return {row[0]: Column(*row) for row in cursor.fetchall()}


# -- tables


def _restore_tables(cursor: Any, archive: str, items: list[Item]) -> dict[int, dict[str, Any]]:
    """In passes, until none adds a row: a row may point to one that comes in a later pass."""
    reports: dict[int, dict[str, Any]] = {}
    counts = {item.number: 0 for item in items}
    added = True
    while added:
        added = False
        for item in items:
            reports.update(_guarded(cursor, archive, [item], _insert_rows))
            inserted = reports[item.number]["restored"]
            counts[item.number] += inserted
            added = added or inserted > 0
    for item in items:
        reports[item.number]["restored"] = counts[item.number]
        if not reports[item.number]["reason"]:
            _finish_table(cursor, archive, item, reports[item.number])
    return reports


def _insert_rows(cursor: Any, archive: str, items: list[Item]) -> dict[int, dict[str, Any]]:
    (item,) = items
    columns = _columns(cursor, archive, item)
    if not columns:
        return {item.number: _report(cursor, archive, item, 0, f"{item.schema}.{item.table} is not there")}
    names = ", ".join(quoted(name) for name in columns)
    values = ", ".join(column.archived for column in columns.values())
    conditions = " AND ".join(_parents_exist(cursor, item, columns)) or "true"
    cursor.execute(
        f"INSERT INTO {item.live} ({names}) OVERRIDING SYSTEM VALUE "
        f"SELECT {values} FROM {quoted(archive, item.relation)} AS a WHERE {conditions} ON CONFLICT DO NOTHING"
    )
    return {item.number: _report(cursor, archive, item, cursor.rowcount, "")}


def _parents_exist(cursor: Any, item: Item, columns: dict[str, Column]) -> list[str]:
    cursor.execute(_FOREIGN_KEYS, (item.live,))
    conditions = []
    for parent, own, other in cursor.fetchall():
        if all(name in columns for name in own):
            missing = " OR ".join(f"a.{quoted(name)} IS NULL" for name in own)
            pairs = zip(own, other)
            same = " AND ".join(f"p.{quoted(theirs)} = {columns[mine].archived}" for mine, theirs in pairs)
            conditions.append(f"({missing} OR EXISTS (SELECT FROM {parent} AS p WHERE {same}))")
    return conditions


def _finish_table(cursor: Any, archive: str, item: Item, report: dict[str, Any]) -> None:
    cursor.execute(_SEQUENCES, (item.live,) * 3)
    for column, sequence in cursor.fetchall():
        cursor.execute(
            f"SELECT setval({literal(sequence)}, highest) "
            f"FROM (SELECT max({quoted(column)}) AS highest FROM {item.live}) AS ids "
            f"WHERE highest >= (SELECT last_value FROM {sequence})"
        )
    left = report["rows"] - report["restored"]
    if left:
        report["reason"] = f"{left} rows were there, or what they point to is not"
    _mark(cursor, archive, item, report["restored"])


# -- columns


def _restore_columns(cursor: Any, archive: str, items: list[Item]) -> dict[int, dict[str, Any]]:
    """All columns of one copy in one UPDATE: a second one could not tell whom the first has touched."""
    columns = _columns(cursor, archive, items[0])
    here = [item for item in items if {item.column, *item.key} <= set(columns) and item.kind != down.CHANGED]
    reports = {}
    for item in items:
        reason = _KEPT_FOR_COMPARISON if item.kind == down.CHANGED else "the column or its table is not there"
        reports[item.number] = _report(cursor, archive, item, 0, reason)
    if here:
        pairs = " AND ".join(f"t.{quoted(name)} = {columns[name].archived}" for name in here[0].key)
        joined = f"{quoted(archive, here[0].relation)} AS a WHERE {pairs}"
        wanted = {item.number: _may_be_filled(item, columns[item.column]) for item in here}
        for item, reason, restored in _counted(cursor, joined, here, wanted, columns):
            reports[item.number] = _report(cursor, archive, item, restored, reason)
            _mark(cursor, archive, item, restored)
        _fill(cursor, joined, here, wanted, columns)
    return reports


def _may_be_filled(item: Item, column: Column) -> str:
    """Where the live value is still what the column was created with, or the rollback left."""
    name = f"t.{quoted(column.name)}"
    conditions = [f"{name} IS NULL", f"{name} IS NOT DISTINCT FROM ({column.default})"]
    if item.kind == down.COLUMN:
        added = (
            f"SELECT xmin FROM pg_attribute WHERE attrelid = {literal(item.live)}::regclass "
            f"AND attname = {literal(column.name)}"
        )
        # A default such as now() differs from row to row; a row not written since has it still.
        conditions.append(f"age(t.xmin) >= age(({added}))")
    return f"({' OR '.join(conditions)})"


def _counted(
    cursor: Any, joined: str, items: list[Item], wanted: dict[int, str], columns: dict[str, Column]
) -> list[tuple[Item, str, int]]:
    """For each column: what could not be restored, in words, and how many rows can."""
    counts = ["count(*)"]
    for item in items:
        differs = f"t.{quoted(item.column)} IS DISTINCT FROM {columns[item.column].archived}"
        counts.append(f"count(*) FILTER (WHERE {differs} AND {wanted[item.number]})")
        counts.append(f"count(*) FILTER (WHERE {differs} AND NOT {wanted[item.number]})")
    relation, _where, conditions = joined.partition(" AS a WHERE ")
    cursor.execute(f"SELECT count(*) FROM {relation}")
    archived = cursor.fetchone()[0]
    cursor.execute(f"SELECT {', '.join(counts)} FROM {items[0].live} AS t, {relation} AS a WHERE {conditions}")
    matched, *numbers = cursor.fetchone()
    found = []
    for position, item in enumerate(items):
        restored, newer = numbers[2 * position : 2 * position + 2]
        reasons = {"rows are gone": archived - matched, "rows have a newer value": newer}
        found.append((item, ", ".join(f"{number} {words}" for words, number in reasons.items() if number), restored))
    return found


def _fill(cursor: Any, joined: str, items: list[Item], wanted: dict[int, str], columns: dict[str, Column]) -> None:
    changes, conditions = [], []
    for item in items:
        name, archived = quoted(item.column), columns[item.column].archived
        changes.append(f"{name} = CASE WHEN {wanted[item.number]} THEN {archived} ELSE t.{name} END")
        conditions.append(f"(t.{name} IS DISTINCT FROM {archived} AND {wanted[item.number]})")
    cursor.execute(
        f"UPDATE {items[0].live} AS t SET {', '.join(changes)} FROM {joined} AND ({' OR '.join(conditions)})"
    )
