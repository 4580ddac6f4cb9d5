# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups that are proven: each was restored into a scratch database and compared with the snapshot it was taken from.

A backup is a directory: dump/ as pg_dump made it, keys/ with the hashes of each table's rows, and manifest.json. It
gets its name when it is proven; before that it is nothing that could be taken for a backup.
"""
from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils import (
    postgres,
    postgres_tools,
    side_database,
    table_contents,
    validate,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held
from ansible_collections.marketsage.rollback.plugins.module_utils.files import (
    fsync_directory,
    read_json,
    write_atomically,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import canonical, digest, now
from ansible_collections.marketsage.rollback.plugins.module_utils.postgres_tools import Tools, megabytes, size_of

_MANIFEST = "manifest.json"
_UNFINISHED = ".taking-"
_SHOWN = (
    "id", "database", "taken_at", "proven_at", "size", "sha256", "wal_position", "server_version", "run", "tables",
    "point_in_time",
)  # fmt: skip
_SNAPSHOT = """
SELECT pg_export_snapshot(), now(), current_setting('server_version'),
  (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text"""


class Backup(NamedTuple):
    """One backup on disk."""

    path: str
    manifest: dict[str, Any]

    @property
    def dump(self) -> str:
        return os.path.join(self.path, "dump")

    def damage(self) -> str:
        """What is wrong with its files at a glance (each is there, with its size), empty where nothing is."""
        for name, file in self.manifest["files"].items():
            path = os.path.join(self.path, name)
            if not os.path.exists(path):
                return f"{name} is missing"
            if os.path.getsize(path) != file["size"]:
                return f"{name} has {os.path.getsize(path)} bytes instead of {file['size']}"
        return ""

    def check(self) -> None:
        """Read everything; Held where a single byte is not what it was when the backup was proven."""
        wrong = self.damage()
        if not wrong:
            differing = [name for name, file in self.manifest["files"].items() if self._hash(name) != file["sha256"]]
            wrong = f"{', '.join(differing)}: its checksum is another one" if differing else ""
        if wrong:
            raise Held(f"backup {self.manifest['id']} is damaged: {wrong}", "Choose another with 'backup'.")

    def _hash(self, name: str) -> str:
        return _sha256(os.path.join(self.path, name))

    def hashes(self, table: str) -> Iterator[bytes]:
        """The rows of a table as they were, as table_contents.hashes() has them."""
        name = self.manifest["tables"][table]["keys"]
        with gzip.open(os.path.join(self.path, name)) as file:
            yield from (line.rstrip(b"\n") for line in file)

    def shown(self) -> dict[str, Any]:
        """What an operator needs to know of it; age in seconds."""
        taken = datetime.fromisoformat(self.manifest["taken_at"].replace("Z", "+00:00"))
        damage = self.damage()
        return {
            **{key: self.manifest[key] for key in _SHOWN},
            "path": self.path,
            "age": int((datetime.now(timezone.utc) - taken).total_seconds()),
            "rows": sum(table["rows"] for table in self.manifest["tables"].values()),
            "state": "damaged" if damage else "proven",
            "damage": damage,
        }


class Store:
    """The directory with the backups."""

    def __init__(self, directory: str) -> None:
        self.directory = validate.absolute_path(directory, "directory")

    def all(self, database: str) -> list[Backup]:
        """The backups of a database, newest first."""
        names = os.listdir(self.directory) if os.path.isdir(self.directory) else []
        found = [self._read(name) for name in names if not name.startswith(".")]
        mine = [one for one in found if one and one.manifest["database"] == database]
        return sorted(mine, key=lambda one: str(one.manifest["taken_at"]), reverse=True)

    def _read(self, name: str) -> Backup | None:
        path = os.path.join(self.directory, name)
        try:
            manifest = read_json(os.path.join(path, _MANIFEST), None)
            return Backup(path, manifest) if manifest["id"] == name and manifest["proven_at"] else None
        except (ValueError, TypeError, KeyError, NotADirectoryError):
            return None

    def find(self, database: str, name: str = "") -> Backup:
        """The named backup, else the newest that is whole; BadInput where there is none."""
        if name:
            validate.identifier(name, "backup")
        known = self.all(database)
        wanted = [one for one in known if (one.manifest["id"] == name if name else not one.damage())]
        if not wanted:
            there = ", ".join(one.manifest["id"] for one in known) or "none"
            raise BadInput(f"backup: {self.directory} has no {name or 'proven backup'} of {database}; it has: {there}")
        return wanted[0]

    def discard_unfinished(self) -> None:
        """Remove what a killed run has left."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        for name in os.listdir(self.directory):
            if name.startswith(_UNFINISHED):
                shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)


def new_id(database: str) -> str:
    """When it was taken, of what, and four random digits."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", database)
    return f"{name[:40]}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{os.urandom(2).hex()}"


def take(server: postgres.Server, store: Store, tools: Tools, origin: dict[str, Any]) -> Backup:
    """Take a backup, prove it, and give it its name; nothing is left of one that fails.

    `origin` goes into the manifest: its id, the run, and what else is to be said of where it comes from.
    """
    name = origin["id"]
    store.discard_unfinished()
    unfinished = os.path.join(store.directory, _UNFINISHED + name)
    os.makedirs(os.path.join(unfinished, "keys"), mode=0o700)
    try:
        with server.connect() as administration:
            postgres_tools.end_orphans(administration, server.database)
        made = {"version": 1, "database": server.database, "point_in_time": None, **_dump(server, tools, unfinished)}
        manifest = {**made, **_sealed(unfinished), **origin}
        prove(server, tools, Backup(unfinished, manifest))
        manifest["proven_at"] = now()
        write_atomically(os.path.join(unfinished, _MANIFEST), canonical(manifest))
        os.rename(unfinished, os.path.join(store.directory, name))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    fsync_directory(store.directory)
    return Backup(os.path.join(store.directory, name), manifest)


def _dump(server: postgres.Server, tools: Tools, directory: str) -> dict[str, Any]:
    """Dump, and hash every row, of one and the same exported snapshot."""
    with server.connect(server.database) as connection:
        table_contents.steady(connection)
        with postgres.told(f"database {server.database}"), connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            snapshot, taken_at, version, position = connection.execute(_SNAPSHOT).fetchone()
            tools.say(f"the snapshot of {server.database} is at {position}")
            tables = {}
            for number, table in enumerate(table_contents.tables(connection), start=1):
                keys = f"keys/{number}.gz"
                _keep_hashes(os.path.join(directory, keys), table_contents.hashes(connection, table))
                tables[table.name] = {**table_contents.digest(connection, table), "keys": keys}
            tools.say(f"{sum(table['rows'] for table in tables.values())} rows in {len(tables)} tables are hashed")
            keys_held = table_contents.foreign_keys(connection)
            tools.dump(server, os.path.join(directory, "dump"), snapshot)
    return {
        "taken_at": taken_at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "server_version": version,
        "wal_position": position,
        "tables": tables,
        "foreign_keys": keys_held,
    }


def _keep_hashes(path: str, lines: Iterator[bytes]) -> None:
    with open(path, "wb") as file:
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
            for line in lines:
                packed.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _sealed(directory: str) -> dict[str, Any]:
    """Size and checksum of every file, and one checksum over them all."""
    files = {}
    for parent, _none, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            files[os.path.relpath(path, directory)] = {"size": os.path.getsize(path), "sha256": _sha256(path)}
        fsync_directory(parent)
    return {"files": files, "size": size_of(directory), "sha256": digest(files)}


def _sha256(path: str) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def prove(server: postgres.Server, tools: Tools, backup: Backup) -> None:
    """Restore a backup into a scratch database; Held unless every table has the rows and the content it must have."""
    with server.connect() as connection:
        like = postgres.existing(connection, server.database)
        with side_database.scratch(connection, like) as scratch:
            tools.say(f"restoring {megabytes(backup.manifest['size'])} into {scratch}, to prove the backup")
            tools.restore(server, backup.dump, scratch)
            with server.connect(scratch) as restored:
                verify_contents(restored, backup)


def verify_contents(connection: Any, backup: Backup) -> None:
    """Held unless the database that this connection leads to holds exactly what the manifest says."""
    table_contents.steady(connection)
    found, wanted = table_contents.digests(connection), backup.manifest["tables"]
    wrong = [
        f"{name}: {_rows(found.get(name))}, but {_rows(wanted.get(name))} in the snapshot"
        for name in sorted({*found, *wanted})
        if _content(found.get(name)) != _content(wanted.get(name))
    ]
    if wrong:
        raise Held(f"backup {backup.manifest['id']} does not restore to what was backed up: {'; '.join(wrong)}")
    if table_contents.foreign_keys(connection) != backup.manifest["foreign_keys"]:
        raise Held(f"backup {backup.manifest['id']} does not restore to the foreign keys that were backed up")


def _content(table: dict[str, Any] | None) -> Any:
    return table and (table["rows"], table["hash"])


def _rows(table: dict[str, Any] | None) -> str:
    return f"{table['rows']} rows with hash {table['hash']}" if table else "no such table"
