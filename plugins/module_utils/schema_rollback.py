# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The database's schema back to what an older release knows, and nothing lost by it."""
from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, List, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils import archive, grammar, prisma, prisma_cli
from ansible_collections.marketsage.rollback.plugins.module_utils.archive import Catalogue
from ansible_collections.marketsage.rollback.plugins.module_utils.down import Loss, Script
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held, Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.inverse import Inverse
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma import Database, Release, Row
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma_cli import Cli
from ansible_collections.marketsage.rollback.plugins.module_utils.transaction import Transaction

Ledger = Dict[str, List[Row]]


class Wanted(NamedTuple):
    """The release whose schema is wanted, the one whose schema is there, and who else has migrations' SQL."""

    target: Release
    live: Release
    sources: list[Release]
    schema: str


class Plan(NamedTuple):
    """What takes the migrations `undone` back. `sources` tells for each of them where its undoing comes from."""

    undone: list[str]
    sources: dict[str, str]
    archive: str
    sql: list[str]
    tables: list[tuple[str, str]]
    losses: list[Loss]


def to_undo(ledger: Ledger | None, target: Release, schema: str) -> list[str]:
    """The migrations the target does not know, newest first; Refused where that is not all that differs."""
    if ledger is None:
        raise Refused(prisma.no_ledger(schema))
    ahead, missing, unclear = prisma.compare(ledger, target)
    if unclear:
        advice = "prisma migrate resolve --rolled-back settles one that failed, once you know what it left."
        raise Refused("; ".join(unclear), advice)
    if missing:
        raise Refused(f"the target release needs migrations that the database lacks: {', '.join(missing)}")
    return ahead[::-1]


def plan(where: Database, ledger: Ledger, wanted: Wanted, cli: Cli, run_id: str) -> Plan:
    """Read only: what would be done, or Refused with what cannot be."""
    undone = to_undo(ledger, wanted.target, wanted.schema)
    script, sources = _script(undone, ledger, wanted, cli)
    with prisma.read_only(where, cli.seconds) as cursor:
        name = archive.next_name(cursor, run_id)
        compiled = archive.plan(Catalogue(cursor), script, name, wanted.schema, undone)
    return Plan(undone, sources, name, compiled.sql, compiled.tables, script.losses)


def at_risk(where: Database, made: Plan, seconds: float) -> list[dict[str, Any]]:
    """How many rows and values the plan takes out of the live tables; counting them takes time."""
    with prisma.read_only(where, seconds) as cursor:
        return Catalogue(cursor).rows_at_risk(made.losses)


def _script(undone: list[str], ledger: Ledger, wanted: Wanted, cli: Cli) -> tuple[Script, dict[str, str]]:
    inverse = Inverse(wanted.schema)
    checked_in = {name: wanted.live.down_sql(name) for name in undone}
    for name in reversed(undone):
        sql = prisma.applied_sql(name, ledger, wanted.sources)
        if sql is None:
            raise Refused(f"{name}: no release at hand has its SQL as it was applied")
        if checked_in[name] is None:
            inverse.add(name, sql)
    script = Script(wanted.schema)
    inexact = [name for name, text in checked_in.items() if text is None and not inverse.is_exact(name)]
    if inexact:
        _refuse_impossible(inexact, checked_in, inverse)
        script.read(inverse.beside_prisma(), "the undoing of renames")
        difference = prisma_cli.down_script(cli, wanted.live, wanted.target, inverse.renames())
        script.read(difference, "prisma migrate diff")
        sources = dict.fromkeys(undone, "prisma migrate diff")
    else:
        for name, text in checked_in.items():
            script.read(inverse.script(name) if text is None else text, f"the undoing of {name}")
        sources = {name: "inverse" if text is None else "down.sql" for name, text in checked_in.items()}
    script.check()
    return script, sources


def _refuse_impossible(inexact: list[str], checked_in: dict[str, str | None], inverse: Inverse) -> None:
    advice = "Check in a prisma/migrations/<name>/down.sql for it."
    others = [name for name, text in checked_in.items() if text is not None]
    if others:
        words = f"{', '.join(inexact)}: has no exact inverse, and Prisma's diff would undo {', '.join(others)} too"
        raise Refused(words, advice)
    impossible = [f"{step.migration}: {grammar.short(step.text)}" for step in inverse.impossible()]
    if impossible:
        raise Refused(f"neither an inverse nor Prisma's diff can undo {'; '.join(impossible)}", advice)


def execute(cursor: Any, statement: str) -> None:
    """One statement of a plan; Refused by name where PostgreSQL does."""
    psycopg = library("psycopg", "changing the database")
    try:
        cursor.execute(statement)
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        said = " ".join(str(error.diag.message_primary).split())
        raise Refused(f"PostgreSQL refused {grammar.short(statement)}, and nothing was changed: {said}") from None


class _AlreadyDone(Exception):
    """Somebody took the migrations back since the plan was made: this run, before it was killed."""


def apply(
    where: Database, made: Plan, wanted: Wanted, seconds: float, about_to_commit: Callable[[str], Any]
) -> list[str]:
    """Archive, script and ledger in one transaction; the tables that nobody else could write meanwhile."""

    def work(cursor: Any) -> None:
        now = to_undo(prisma.read_ledger(cursor, wanted.schema), wanted.target, wanted.schema)
        if not now:
            raise _AlreadyDone
        if now != made.undone:
            raise Refused("the database's migrations changed since the plan was made; make it again")
        for statement in made.sql:
            execute(cursor, statement)
        archive.refuse_dependents(cursor, made.archive)

    transaction = Transaction(where, seconds, made.tables, about_to_commit)
    with contextlib.suppress(_AlreadyDone):
        transaction.run(work)
    return transaction.shut_out


def verify(ledger: Ledger | None, target: Release, drift: dict[str, str], schema: str) -> None:
    """Held unless the database is what the target release expects, by ledger and by Prisma's own comparison."""
    left = to_undo(ledger, target, schema)
    if left:
        raise Held(f"the database still has {', '.join(left)}; run this again")
    if drift["state"] in ("found", "unknown"):
        told = "differs from" if drift["state"] == "found" else "could not be compared with"
        words = f"the ledger is that of release {target.id}, but the database {told} its schema.prisma"
        raise Held(f"{words}: {drift['detail']}")


def as_text(made: Plan, risks: list[dict[str, Any]]) -> str:
    """What diff mode shows."""
    lines = [
        f"-- {each['rows']} rows of {each['table']}{'.' + each['column'] if each['column'] else ''} ({each['kind']}) "
        f"go to schema {made.archive}"
        for each in risks
    ]
    return "\n".join([*lines, *(f"{statement};" for statement in made.sql)]) + "\n"
