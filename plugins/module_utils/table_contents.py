# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tables of a database hold, as the server itself hashes it, and how two states of one database differ."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

# How values are written as text, whatever the database, its roles and the server are set to.
_TEXT_SETTINGS = {
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "row_security": "off",
    "idle_in_transaction_session_timeout": "0",
}
# Large objects count as one more table, where there are any. What an extension made comes back with the extension.
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname),
  array(SELECT format('t.%I', attname) FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attname COLLATE "C"),
  array(SELECT format('t.%I', attname) FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indrelid = c.oid AND indisprimary ORDER BY attname COLLATE "C")
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
  OR c.oid = 'pg_largeobject'::regclass AND EXISTS (SELECT FROM pg_largeobject_metadata)
ORDER BY 1"""
_FOREIGN_KEYS = """
SELECT conrelid::regclass || '.' || conname, convalidated FROM pg_constraint WHERE contype = 'f' ORDER BY 1"""
_HASH = "left(encode(sha256(convert_to(ROW({})::text, 'UTF8')), 'hex'), 16)"


class Table(NamedTuple):
    """A table by its quoted name; SQL for the hash of a row's primary key (else of the whole row) and of the row."""

    name: str
    key: str
    row: str


def steady(connection: Any) -> None:
    """Have values written the same way on every connection that is compared."""
    for name, value in _TEXT_SETTINGS.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))


def tables(connection: Any) -> list[Table]:
    return [
        Table(name, _HASH.format(", ".join(key or columns)), _HASH.format(", ".join(columns)))
        for name, columns, key in connection.execute(_TABLES).fetchall()
    ]


def digest(connection: Any, table: Table) -> dict[str, Any]:
    """How many rows a table has, and one number that all of their hashes together make."""
    total = f"coalesce(sum(('x' || {table.row})::bit(64)::bigint::numeric), 0)::text"
    rows, total = connection.execute(f"SELECT count(*), {total} FROM ONLY {table.name} t").fetchone()
    return {"rows": rows, "hash": total}


def digests(connection: Any) -> dict[str, dict[str, Any]]:
    return {table.name: digest(connection, table) for table in tables(connection)}


def foreign_keys(connection: Any) -> dict[str, bool]:
    """Each foreign key, and whether PostgreSQL vouches that every row keeps it."""
    return dict(connection.execute(_FOREIGN_KEYS).fetchall())


def hashes(connection: Any, table: Table) -> Iterator[bytes]:
    """One line for each row, sorted: the hash of its key and that of its content."""
    query = f"SELECT {table.key}, {table.row} FROM ONLY {table.name} t"
    ordered = f'COPY (SELECT * FROM ({query}) AS h(k, r) ORDER BY k COLLATE "C", r COLLATE "C") TO STDOUT'
    with connection.cursor().copy(ordered) as copy:
        rest = b""
        for block in copy:
            *lines, rest = (rest + bytes(block)).split(b"\n")
            yield from lines


def difference(now: Iterable[bytes], then: Iterable[bytes]) -> dict[str, int]:
    """Two sorted states of one table: rows only there now (lost), only there then (returned), or changed since."""
    counts = {"lost": 0, "returned": 0, "changed": 0}
    left, right = iter(now), iter(then)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        key, other_key = _key(one), _key(other)
        if key == other_key:
            counts["changed"] += one != other
        elif key < other_key:
            counts["lost"] += 1
        else:
            counts["returned"] += 1
        one, other = (next(left, None) if key <= other_key else one), (next(right, None) if other_key <= key else other)
    return counts


def _key(line: bytes | None) -> bytes:
    """What a line is sorted by; an ended state comes after everything."""
    return b"~" if line is None else line.split(b"\t", 1)[0]
