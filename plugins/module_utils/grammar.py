# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SQL taken apart and put together with PostgreSQL's own grammar."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

# Settings that last for the script alone and do not change what its statements mean.
HARMLESS_SETTINGS = ("lock_timeout", "statement_timeout", "client_min_messages", "idle_in_transaction_session_timeout")
_WORDS = {"matview": "materialized view", "tabconstraint": "constraint"}


def statements(sql: str, source: str) -> Iterator[tuple[Any, str]]:
    """Each statement's syntax tree and text; Refused where PostgreSQL would not understand it."""
    pglast = library("pglast", "reading migrations")
    try:
        parsed = pglast.parse_sql(sql)
    except pglast.parser.ParseError as error:
        raise Refused(f"{source}: is not SQL that PostgreSQL's grammar knows ({error.args[0]})") from None
    for statement in parsed:
        begin = statement.stmt_location
        end = begin + statement.stmt_len if statement.stmt_len else None
        yield statement.stmt, sql[begin:end].strip()


def written(node: Any) -> str:
    """A syntax tree as SQL."""
    text: str = library("pglast.stream", "reading migrations").RawStream()(node)
    return text


def word(object_type: Any) -> str:
    """What kind of object a statement is about, in SQL's own words."""
    name = object_type.name[len("OBJECT_") :].lower()
    return _WORDS.get(name, name.replace("_", " "))


def named(parts: Any, schema: str) -> tuple[str, str]:
    """Schema and name of a list of names, the last of which is the object's own."""
    names = [part.sval for part in parts]
    return (names[-2] if len(names) > 1 else schema, names[-1])


def relation(node: Any, schema: str) -> tuple[str, str]:
    return (node.schemaname or schema, node.relname)


def quoted(*names: str) -> str:
    """An identifier, qualified where several names are given."""
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


def literal(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))


def begins_or_ends(node: Any) -> bool:
    """Whether it is a BEGIN or COMMIT, as Prisma writes them around the removal of an enum's value."""
    kind = type(node).__name__
    return kind == "TransactionStmt" and node.kind.name in ("TRANS_STMT_BEGIN", "TRANS_STMT_START", "TRANS_STMT_COMMIT")


def is_ignored(node: Any) -> bool:
    """Whether the script means the same without it, inside a transaction of ours."""
    return begins_or_ends(node) or (type(node).__name__ == "VariableSetStmt" and node.name in HARMLESS_SETTINGS)


def short(sql: str) -> str:
    """A statement as a message names it."""
    line = " ".join(sql.split())
    return line if len(line) <= 120 else f"{line[:117]}..."
