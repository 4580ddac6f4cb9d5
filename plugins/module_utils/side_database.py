# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases beside the live one: like it in all that is fixed when a database is made, and gone after a kill."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import postgres

SCRATCH = "rollback_scratch_"
_SCRATCH_LOCK = 1919970080
_LOCALES = {
    "c": " LOCALE_PROVIDER libc",
    "i": " LOCALE_PROVIDER icu ICU_LOCALE {locale}",
    "b": " LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}",
}


def create(connection: Any, name: str, like: dict[str, Any]) -> None:
    """Make an empty database; `like` is a row of postgres.databases()."""
    values = {
        "encoding": like["encoding"],
        "collate": like["datcollate"],
        "ctype": like["datctype"],
        "locale": like.get("datlocale") or like.get("daticulocale") or "",
        "rules": like.get("daticurules") or "",
    }
    options = "ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}"
    options += _LOCALES.get(like.get("datlocprovider") or "", "")
    options += " ICU_RULES {rules}" if values["rules"] else ""
    command = f"CREATE DATABASE {{}} TEMPLATE template0 {options} TABLESPACE {{}} OWNER {{}}"
    connection.execute(postgres.compose(command, name, like["tablespace"], like["owner"], **values))


def drop(connection: Any, name: str) -> None:
    connection.execute(postgres.compose("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))


@contextmanager
def scratch(connection: Any, like: dict[str, Any]) -> Iterator[str]:
    """The name of an empty database that goes away afterwards, or when the next one is made."""
    drop_leftovers(connection)
    name = SCRATCH + os.urandom(8).hex()
    connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (_SCRATCH_LOCK, name))
    create(connection, name, like)
    try:
        yield name
    finally:
        drop(connection, name)
        connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (_SCRATCH_LOCK, name))


def drop_leftovers(connection: Any) -> None:
    """Drop the scratch databases whose makers are gone: the server freed their locks."""
    for name in postgres.databases(connection):
        if name.startswith(SCRATCH) and _take(connection, name):
            drop(connection, name)


def _take(connection: Any, name: str) -> bool:
    query = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"
    return bool(connection.execute(query, (_SCRATCH_LOCK, name)).fetchone()[0])
