# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database is replaced by a backup of it: restored beside it, verified there, swapped with it by rename.

Databases are known by their oid, which a rename does not change: so it can always be read how far a run has come.
"""
from __future__ import annotations

import os
import re
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible_collections.marketsage.rollback.plugins.module_utils import (
    backups,
    command,
    data_loss,
    database_fence,
    postgres,
    postgres_tools,
    side_database,
    table_contents,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Refused, RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json, write_atomically
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma import LEDGER

_LONGEST_NAME = 63
_STAMP = r"\d{8}t\d{6}z"
_GRANTS = """
SELECT CASE WHEN grantee = 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable
FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE datname = %s ORDER BY 1, 2"""


class Names(NamedTuple):
    """What the databases are called: the live one, the restored one beside it, and the old one that is kept."""

    live: str
    restored: str
    kept: str

    @classmethod
    def of(cls, database: str, run_id: str) -> Names:
        stamp = run_id.partition("-")[0].lower()
        names = cls(database, f"{database}_restored_{stamp}", f"{database}_before_{stamp}")
        if len(names.restored.encode()) > _LONGEST_NAME:
            raise Refused(f"database {database}: its name is too long for another one to be kept beside it")
        return names


def beside(connection: Any, database: str, kind: str) -> list[str]:
    """The databases that runs have left beside a live one: kind is restored or before."""
    pattern = re.compile(rf"{re.escape(database)}_{kind}_{_STAMP}")
    return sorted(name for name in postgres.databases(connection) if pattern.fullmatch(name))


class Memory:
    """How far the newest recovery of a database has come, kept beside the backups."""

    def __init__(self, directory: str, database: str) -> None:
        self._path = os.path.join(directory, f".recovery-{quote(database, safe='')}.json")

    def load(self) -> dict[str, Any]:
        state: dict[str, Any] = read_json(self._path, {})
        return state

    def keep(self, **facts: Any) -> dict[str, Any]:
        state = {**self.load(), **facts}
        write_atomically(self._path, canonical(state))
        return state

    def begin(self, **facts: Any) -> None:
        write_atomically(self._path, canonical(facts))


# -- what would be lost


def loss(server: postgres.Server, backup: backups.Backup) -> data_loss.Loss:
    """What the live database has and the backup has not, row by row; not known where it cannot be read."""
    try:
        with server.connect(server.database) as connection:
            tables = _differences(connection, backup)
    except RollbackError as error:
        return {"known": False, "why": str(error), "rows": 0, "tables": {}}
    differing = {name: counts for name, counts in sorted(tables.items()) if any(counts.values())}
    return {"known": True, "why": "", "rows": sum(one["lost"] for one in differing.values()), "tables": differing}


def _differences(connection: Any, backup: backups.Backup) -> dict[str, dict[str, int]]:
    table_contents.steady(connection)
    known = backup.manifest["tables"]
    gone = {name: {"lost": 0, "returned": table["rows"], "changed": 0} for name, table in known.items()}
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        there = {
            table.name: table_contents.difference(
                table_contents.hashes(connection, table), backup.hashes(table.name) if table.name in known else ()
            )
            for table in table_contents.tables(connection)
        }
    return {**gone, **there}


def migrations_lost(lost: data_loss.Loss) -> int:
    """How many migrations the database has that the backup lacks."""
    counts = [one["lost"] for name, one in lost["tables"].items() if name.rpartition(".")[2] == LEDGER]
    return sum(counts)


# -- beside the live one


def restore(server: postgres.Server, tools: postgres_tools.Tools, backup: backups.Backup, names: Names) -> int:
    """Restore the backup into a new database that has everything of the live one but its fence; the oid of it."""
    backup.check()
    tools.say(f"backup {backup.manifest['id']} is whole, byte for byte; restoring it into {names.restored}")
    with server.connect() as connection:
        live = postgres.existing(connection, names.live)
        for leftover in beside(connection, names.live, "restored"):
            side_database.drop(connection, leftover)
        side_database.create(connection, names.restored, live)
        tools.restore(server, backup.dump, names.restored)
        carry_over(connection, names.live, names.restored)
        with server.connect(names.restored) as restored:
            backups.verify_contents(restored, backup)
            restored.execute("ANALYZE")
        return int(postgres.existing(connection, names.restored)["oid"])


def carry_over(connection: Any, source: str, target: str) -> None:
    """Settings, grants and comment of a database, all but what the fence changes; owner and locale it was made with."""
    for role, values in postgres.settings(connection, source).items():
        for name, value in values.items():
            if name != database_fence.READ_ONLY:
                postgres.change_setting(connection, target, role, name, value)
    with connection.transaction():
        row = postgres.existing(connection, source)
        for grantee in {"", row["owner"], *(grantee for grantee, _privilege, _option in grants(connection, target))}:
            connection.execute(_grant("REVOKE ALL ON DATABASE {} FROM", target, grantee))
        for grantee, privilege, option in grants(connection, source):
            granted = _grant(f"GRANT {privilege} ON DATABASE {{}} TO", target, grantee)
            connection.execute(granted + postgres.compose(" WITH GRANT OPTION" if option else ""))
        if row["comment"] is not None:
            connection.execute(postgres.compose("COMMENT ON DATABASE {} IS {text}", target, text=row["comment"]))


def grants(connection: Any, database: str) -> list[tuple[str, str, bool]]:
    """Who may do what with a database; the grantee "" is everybody."""
    found: list[tuple[str, str, bool]] = connection.execute(_GRANTS, (database,)).fetchall()
    return found


def _grant(words: str, database: str, grantee: str) -> Any:
    who = postgres.compose(" {}", grantee) if grantee else postgres.compose(" PUBLIC")
    return postgres.compose(words, database) + who


def unlike(connection: Any, one: str, other: str) -> list[str]:
    """In what two databases differ that they should have in common."""
    rows = [postgres.existing(connection, name) for name in (one, other)]
    facts = [
        {
            **{key: row[key] for key in ("owner", "encoding", "datcollate", "datctype", "comment", "tablespace")},
            "settings": postgres.settings(connection, row["datname"]),
            "grants": grants(connection, row["datname"]),
            "fence": database_fence.read(connection, row["datname"]),
        }
        for row in rows
    ]
    return [key for key in facts[0] if facts[0][key] != facts[1][key]]


def run_command(
    argv: list[str], directory: str, environment: dict[str, str], server: postgres.Server, name: str
) -> str:
    """Have the application's own check look at a database; what it said, or Held where it is not content."""
    variables = command.with_variables({**environment, "DATABASE_URL": server.url_of(name)})
    code, output = command.execute("verify_command", argv, directory, variables, server.deadline)
    said = command.tail(output).replace(server.password, "***") if server.password else command.tail(output)
    if code != 0:
        raise Held(f"verify_command: {' '.join(argv)} ended with {code} on {name}: {said}", "Choose another backup.")
    return said


# -- the swap


def swap(connection: Any, server: postgres.Server, names: Names, fence: database_fence.State) -> None:
    """Give the restored database the live one's name; nobody can be in either meanwhile."""
    database_fence.apply(connection, names.restored, {**fence, "connections_allowed": False})
    connection.execute(postgres.compose("ALTER DATABASE {} ALLOW_CONNECTIONS false", names.live))
    postgres.end_sessions(connection, server.deadline, names.live, names.restored)
    rename(connection, names, fence["connections_allowed"])


def rename(connection: Any, names: Names, allowed: bool) -> None:
    """Both renames or none."""
    with connection.transaction():
        connection.execute(postgres.compose("ALTER DATABASE {} RENAME TO {}", names.live, names.kept))
        connection.execute(postgres.compose("ALTER DATABASE {} RENAME TO {}", names.restored, names.live))
        for name in (names.live, names.kept):
            connection.execute(postgres.compose(f"ALTER DATABASE {{}} ALLOW_CONNECTIONS {allowed}", name))


def check_kept(database: str, name: str) -> None:
    """BadInput unless that is what an old database is called which a recovery has kept."""
    if not re.fullmatch(rf"{re.escape(database)}_before_{_STAMP}", name):
        kept = f"{database}_before_20261125t081500z"
        raise BadInput(f"name: {name!r} is no database that a recovery of {database} has kept, such as {kept}")
