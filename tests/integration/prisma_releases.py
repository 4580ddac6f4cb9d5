"""Releases with migrations, and Prisma's own command line to deploy them, for tests on real databases."""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from ansible_collections.marketsage.rollback.sandbox import node

HERE = Path(__file__).parent
BACKEND = HERE.parents[1] / "sandbox" / "apps" / "backend"
URL_LINE = '\n  url = env("DATABASE_URL")'

_CREATE_LEDGER = """CREATE TABLE IF NOT EXISTS "{schema}"."_prisma_migrations" (
    id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL, finished_at TIMESTAMPTZ,
    migration_name VARCHAR(255) NOT NULL, logs TEXT, rolled_back_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(), applied_steps_count INTEGER NOT NULL DEFAULT 0
)"""


class Ledger:
    """A database and a ledger that is written as Prisma writes it."""

    def __init__(self, url: str, schema: str = "public") -> None:
        self.url, self.schema = url, schema
        self.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        self.execute(_CREATE_LEDGER.format(schema=schema))

    def execute(self, sql: str, *values: Any) -> psycopg.Cursor[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(sql, values or None)

    def applied(self, name: str, sql: str) -> None:
        self.execute(sql)
        self.recorded(name, sql, finished=True)

    def recorded(self, name: str, sql: str, *, finished: bool) -> None:
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        times = "clock_timestamp(), " + ("clock_timestamp()" if finished else "NULL")
        self.execute(
            f'INSERT INTO "{self.schema}"."_prisma_migrations" (id, checksum, migration_name, started_at, finished_at) '
            f"VALUES (gen_random_uuid(), %s, %s, {times})",
            checksum, name,
        )


def write_release(directory: Path, models: str, migrations: dict[str, str], url: str = URL_LINE) -> Path:
    """A release as it is built, with its schema.prisma and migrations."""
    for name, sql in migrations.items():
        (directory / "prisma" / "migrations" / name).mkdir(parents=True)
        (directory / "prisma" / "migrations" / name / "migration.sql").write_text(sql)
    (directory / "prisma" / "migrations" / "migration_lock.toml").write_text('provider = "postgresql"\n')
    source = f'datasource db {{\n  provider = "postgresql"{url}\n}}\n'
    (directory / "prisma" / "schema.prisma").write_text(source + models)
    (directory / "release.json").write_text(json.dumps({"release": directory.name}))
    return directory


class Prisma:
    """The command line of one version, and the packages that a release of it has."""

    def __init__(self, package: Path, url: str, config: Path | None = None) -> None:
        self.modules = node.install(package)
        self.url_line = url
        self.config = config
        names = ("PATH", "PRISMA_SCHEMA_ENGINE_BINARY", "PRISMA_QUERY_ENGINE_LIBRARY", "CHECKPOINT_DISABLE")
        self.environment = {name: node.environment()[name] for name in names}
        self.argv = ["node_modules/.bin/prisma"]

    @classmethod
    def of_version(cls, major: int) -> Prisma:
        if major == 7:
            return cls(HERE / "prisma7", url="", config=HERE / "prisma7" / "prisma.config.ts")
        return cls(BACKEND, url=URL_LINE)

    def equip(self, release: Path) -> Path:
        (release / "node_modules").symlink_to(self.modules)
        if self.config:
            shutil.copy(self.config, release)
        return release

    def deploy(self, release: Path, url: str) -> None:
        subprocess.run(
            [*self.argv, "migrate", "deploy"], cwd=release, check=True, capture_output=True, timeout=60,
            env={**os.environ, **self.environment, "DATABASE_URL": url},
        )
