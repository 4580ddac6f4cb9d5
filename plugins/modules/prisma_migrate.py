#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_migrate
short_description: Tell whether a release can run on the database, and put its schema back or forward
description:
  - Compares Prisma's ledger in the database with the migrations of releases, in a read-only transaction.
  - Takes migrations back without losing what they, or the release that came with them, have stored since.
  - C(prisma migrate status) is not asked, because it says up to date of a database that is ahead of the release.
version_added: 0.1.0
author: MarketSage (@marketsage)
requirements:
  - psycopg >= 3
  - pglast >= 7, only where the database is ahead of a release
options:
  state:
    description:
      - V(status) lists every migration that the database or O(release) knows.
      - V(compatible) judges whether each release can run on the database.
      - V(rolled_back) takes the migrations back that O(release) does not know, in one transaction together with the
        ledger's rows. What that would drop is moved or copied to a schema C(rollback_) with the run's id first.
        Every table that is touched is locked against all other sessions, background jobs included, and a session that
        tries to write there has to be refused before anything is changed.
      - V(deployed) applies the migrations of O(release) by C(prisma migrate deploy).
    type: str
    required: true
    choices: [status, compatible, rolled_back, deployed]
  database_url_file:
    description:
      - File, readable by its owner alone, with the database's URL as Prisma takes it.
      - The parameter C(schema) tells where the ledger is; what only Prisma understands is not passed on.
    type: path
    required: true
  release:
    description:
      - Directory of the release to compare with, with C(prisma/migrations).
      - One of O(release) and O(releases_dir) is required; every state but V(compatible) needs O(release).
    type: path
  releases_dir:
    description:
      - Directory of releases. Those with a C(release.json) are judged, unless O(release) names the only one.
      - They also serve to find the SQL of migrations that the database is ahead by.
    type: path
  live:
    description:
      - Directory of the release that runs now. Its migrations tell what the database is ahead by, and its
        C(prisma/schema.prisma) what the database should look like.
      - For O(state=rolled_back) it is the release whose migrations are taken back. How, is taken from its
        C(prisma/migrations/NAME/down.sql) where there is one, else worked out from the migration itself, else, for what
        has no exact inverse, asked of Prisma as the difference of the two releases' C(schema.prisma).
    type: path
  prisma:
    description:
      - Command of Prisma's CLI, run in the directory of a release, to find changes made by hand, to prove that the
        database is what a release expects, and for O(state=deployed).
      - Without it RV(drift.state) is V(not checked).
    type: list
    elements: str
    default: []
  environment:
    description: Environment variables for O(prisma). The database's URL is added.
    type: dict
    default: {}
  timeout:
    description: Seconds to wait for the database when it is read, and for O(prisma) when it compares.
    type: float
    default: 30
  wait:
    description:
      - Seconds that a change of the database may take, with waiting for locks and for its reconnecting.
      - C(prisma migrate deploy) may take as long.
      - A table is waited for half a second at a time, so that its readers never wait longer behind it.
    type: float
    default: 300
  restore_archive:
    description:
      - For O(state=deployed), the schema that RV(archive) named. What it has is brought back once the migrations are
        applied, without overwriting anything newer. What was brought back once is not again. The archive is kept.
      - Refused where nothing of it has a place in the database as it is.
    type: str
attributes:
  check_mode:
    description: Everything is worked out and nothing is changed.
    support: full
  diff_mode:
    description: Shows the SQL and how many rows are at risk.
    support: full
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Judge every release that is at hand
  marketsage.rollback.prisma_migrate:
    state: compatible
    database_url_file: /etc/rollback/database_url
    releases_dir: /srv/backend/releases
    live: /srv/backend/current
    prisma: [node_modules/.bin/prisma]
  register: database

- name: See what became of each migration of the live release
  marketsage.rollback.prisma_migrate:
    state: status
    database_url_file: /etc/rollback/database_url
    release: /srv/backend/current

- name: Take the schema back to what the last good release knows
  marketsage.rollback.prisma_migrate:
    state: rolled_back
    database_url_file: /etc/rollback/database_url
    release: /srv/backend/releases/0123456789ab
    live: /srv/backend/releases/fedcba987654
    prisma: [node_modules/.bin/prisma]
    run: "{{ run }}"
  register: schema

- name: Go forward with the release that was mended, and bring back what was set aside
  marketsage.rollback.prisma_migrate:
    state: deployed
    database_url_file: /etc/rollback/database_url
    release: /srv/backend/releases/89abcdef0123
    restore_archive: rollback_20261124t031500z_backend_3f9a
    prisma: [node_modules/.bin/prisma]
    run: "{{ run }}"
"""

RETURN = r"""
ledger:
  description: Whether the database has Prisma's ledger at all.
  returned: success
  type: bool
schema:
  description: The database schema that was looked at.
  returned: success
  type: str
migrations:
  description: Every migration that the database or the release knows, by name.
  returned: when O(state) is not V(compatible)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the migration.
      type: str
    state:
      description:
        - C(applied), C(failed) (begun and not ended), C(rolled_back) (taken back; a deploy applies it again),
          C(pending) (in the release alone), C(unknown_to_release) (applied, in the database alone) or C(edited)
          (applied, but the release has another text).
      type: str
    started_at:
      description: When the last attempt began, ISO 8601.
      type: str
    finished_at:
      description: When the last attempt ended.
      type: str
    rolled_back_at:
      description: When the last attempt was taken back.
      type: str
archives:
  description: Schemas in which earlier rollbacks keep what they set aside, oldest first.
  returned: when O(state=status) or O(state=compatible)
  type: list
  elements: dict
  contains:
    name:
      description: The schema, as O(restore_archive) takes it.
      type: str
    items:
      description: How many tables, columns and enums have something in it.
      type: int
    waiting:
      description: How many of them were not brought back yet.
      type: int
undone:
  description: Migrations that are taken back, newest first, and where their undoing comes from.
  returned: when O(state=rolled_back)
  type: dict
  sample: {20231215_full_name: inverse}
sql:
  description: What is run, in its order, in one transaction.
  returned: when O(state=rolled_back)
  type: list
  elements: str
at_risk:
  description: What goes to the archive. It is counted in check mode and in diff mode alone.
  returned: when O(state=rolled_back)
  type: list
  elements: dict
  contains:
    kind:
      description: C(table), C(column), C(changed column) or C(enum values).
      type: str
    table:
      description: Schema and name of the table.
      type: str
    column:
      description: Name of the column; null for a table.
      type: str
    rows:
      description: Rows of the table, values of the column that are not null, or rows with a value that goes.
      type: int
archive:
  description:
    - The schema, named after the run, with what was set aside by it; in check mode, how it would be called.
    - Null without any.
  returned: when O(state=rolled_back)
  type: str
archived:
  description: What it holds. RV(archived[].rows) is an estimate where RV(archived[].counted) is false.
  returned: when O(state=rolled_back)
  type: list
  elements: dict
  contains:
    kind:
      description: As in RV(at_risk[].kind).
      type: str
    table:
      description: Where it comes from.
      type: str
    column:
      description: Name of the column; null for a table.
      type: str
    rows:
      description: Rows that were moved or copied.
      type: int
    counted:
      description: Whether they were counted.
      type: bool
    relation:
      description: Name of the table in the archive.
      type: str
shut_out:
  description:
    - Tables that no other session could write while the migrations were taken back, as one that tried was told.
    - Empty where nothing was changed.
  returned: when O(state=rolled_back)
  type: list
  elements: str
  sample: ['"public"."Contact"']
deployed:
  description: Migrations that are applied.
  returned: when O(state=deployed)
  type: list
  elements: str
restored:
  description: What became of each thing in O(restore_archive); empty in check mode.
  returned: when O(state=deployed)
  type: list
  elements: dict
  contains:
    kind:
      description: As in RV(at_risk[].kind).
      type: str
    table:
      description: Where it comes from.
      type: str
    column:
      description: Name of the column; null for a table.
      type: str
    rows:
      description: Rows in the archive.
      type: int
    restored:
      description: Rows that were brought back.
      type: int
    reason:
      description: Why the others were not.
      type: str
verdicts:
  description: What was found about each release, by its id.
  returned: when O(state=compatible)
  type: dict
  contains:
    verdict:
      description:
        - C(equal), C(additive) (the database is ahead by changes the release can live with), C(destructive) (ahead by
          changes it cannot live with), C(behind) (lacks migrations of the release) or C(unknown).
      type: str
    reasons:
      description: Why, in words, by migration.
      type: list
      elements: str
    ahead:
      description: Migrations that the database has and the release does not, in the order they were applied.
      type: list
      elements: str
    missing:
      description: Migrations that the release has and the database does not.
      type: list
      elements: str
  sample:
    0123456789ab:
      verdict: destructive
      reasons: ["20231202_rename: renames column Contact.email"]
      ahead: ["20231202_rename"]
      missing: []
drift:
  description:
    - Whether the database differs from the C(schema.prisma) of O(live) or, for O(state=rolled_back) and
      O(state=deployed), in the end from that of O(release).
  returned: when O(state) is not V(status)
  type: dict
  contains:
    state:
      description: C(none), C(found), C(unknown) (asked without success) or C(not checked).
      type: str
    detail:
      description: Why it was not checked, or what Prisma said.
      type: str
"""

import os
from dataclasses import asdict
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import (
    archive,
    drift,
    prisma,
    prisma_cli,
    restore,
    schema_rollback,
    transaction,
    validate,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, Refused, finish
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

ARGUMENTS = {
    "state": {"type": "str", "required": True, "choices": ["status", "compatible", "rolled_back", "deployed"]},
    "database_url_file": {"type": "path", "required": True},
    "release": {"type": "path"},
    "releases_dir": {"type": "path"},
    "live": {"type": "path"},
    "prisma": {"type": "list", "elements": "str", "default": []},
    "environment": {"type": "dict", "default": {}},
    "timeout": {"type": "float", "default": 30},
    "wait": {"type": "float", "default": 300},
    "restore_archive": {"type": "str"},
    "run": RUN_ARGUMENT,
}


class Subject:
    """The database and the releases that the parameters name."""

    def __init__(self, params: dict[str, Any]) -> None:
        file = validate.absolute_path(params["database_url_file"], "database_url_file")
        url = read_secret(file, "database_url_file")
        environment = {name: str(value) for name, value in params["environment"].items()}
        self.where = prisma.database(url)
        self.cli = prisma_cli.Cli(params["prisma"], environment, url, params["timeout"])
        # The argument spec demands them where a state needs them.
        self.release: Any = release_of(params, "release")
        self.live: Any = release_of(params, "live")
        self.others = prisma.releases_in(params["releases_dir"]) if params["releases_dir"] else []

    @property
    def sources(self) -> list[prisma.Release]:
        return [self.live, *self.others] if self.live else self.others

    def ask(self, question: Callable[[Any], Any]) -> Any:
        with prisma.read_only(self.where, self.cli.seconds) as cursor:
            return question(cursor)

    def ledger(self) -> Any:
        return self.ask(lambda cursor: prisma.read_ledger(cursor, self.where.schema))

    def result(self, ledger: Any, **found: Any) -> dict[str, Any]:
        return {"changed": False, "ledger": ledger is not None, "schema": self.where.schema, **found}


def release_of(params: dict[str, Any], name: str) -> prisma.Release | None:
    return prisma.Release(validate.absolute_path(params[name], name), name) if params[name] else None


def status(_module: AnsibleModule, subject: Subject) -> dict[str, Any]:
    ledger = subject.ledger()
    migrations = prisma.states(ledger or {}, subject.release)
    return subject.result(ledger, migrations=migrations, archives=subject.ask(archive.kept))


def compatible(_module: AnsibleModule, subject: Subject) -> dict[str, Any]:
    ledger = subject.ledger()
    verdicts = {
        target.id: prisma.judge(ledger, target, subject.sources, subject.where.schema)
        for target in ([subject.release] if subject.release else subject.others)
    }
    found = drift.NOT_NEEDED
    if any(verdict.ahead for verdict in verdicts.values()):
        found = drift.check(subject.live, ledger, subject.cli)
    if found["state"] == "found":
        verdicts = {release_id: prisma.despite_drift(verdict) for release_id, verdict in verdicts.items()}
    shown = {release_id: asdict(verdict) for release_id, verdict in verdicts.items()}
    return subject.result(ledger, verdicts=shown, drift=found, archives=subject.ask(archive.kept))


def rolled_back(module: AnsibleModule, subject: Subject) -> dict[str, Any]:
    """Read, plan, refuse or change, read back."""
    ledger = subject.ledger()
    wanted = schema_rollback.Wanted(subject.release, subject.live, subject.sources, subject.where.schema)
    if not schema_rollback.to_undo(ledger, subject.release, subject.where.schema):
        return nothing_to_undo(module, subject, ledger)
    refuse_drift(subject, ledger)
    run_id = (module.params["run"] or {}).get("id", "")
    plan = schema_rollback.plan(subject.where, ledger, wanted, subject.cli, run_id)
    found = drift.result("not checked", "nothing was changed")
    at_risk: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    shut_out: list[str] = []
    if module.check_mode or module._diff:
        at_risk = schema_rollback.at_risk(subject.where, plan, subject.cli.seconds)
    diff = {"prepared": schema_rollback.as_text(plan, at_risk)}
    if not module.check_mode:
        found, shut_out, kept = roll_back(module, subject, plan, wanted)
        ledger = subject.ledger()
    migrations = prisma.states(ledger, subject.release)
    result = subject.result(ledger, migrations=migrations, undone=plan.sources, sql=plan.sql, at_risk=at_risk)
    kept_there = {"archive": plan.archive, "archived": kept, "shut_out": shut_out}
    return {**result, **kept_there, "changed": True, "drift": found, "diff": diff}


def roll_back(
    module: AnsibleModule, subject: Subject, plan: schema_rollback.Plan, wanted: schema_rollback.Wanted
) -> tuple[dict[str, str], list[str], list[dict[str, Any]]]:
    """What Prisma then finds different, the tables that nobody else could write meanwhile, and what was archived."""
    run = Run.of(module.params["run"])
    intent = {"undone": plan.undone, "archive": plan.archive, "sql": plan.sql}
    with run.change("schema.rolled_back", intent) as change:
        shut_out = schema_rollback.apply(subject.where, plan, wanted, module.params["wait"], before_commit(run))
        found = prove(subject)
        kept = subject.ask(lambda cursor: archive.contents(cursor, plan.archive))
        change.outcome = {"archive": plan.archive, "archived": kept, "drift": found["state"], "shut_out": shut_out}
    return found, shut_out, kept


def nothing_to_undo(module: AnsibleModule, subject: Subject, ledger: Any) -> dict[str, Any]:
    """It is so already; what this run set aside before it was interrupted is told again."""
    found = prove(subject)
    run_id = (module.params["run"] or {}).get("id")
    earlier = subject.ask(lambda cursor: archive.existing(cursor, run_id)) if run_id else []
    name = earlier[-1] if earlier else None
    kept = subject.ask(lambda cursor: archive.contents(cursor, name)) if name else []
    migrations = prisma.states(ledger, subject.release)
    result = subject.result(ledger, migrations=migrations, undone={}, sql=[], at_risk=[])
    return {**result, "archive": name, "archived": kept, "shut_out": [], "drift": found}


def refuse_drift(subject: Subject, ledger: Any) -> None:
    """On a database that was changed by hand, what was worked out from files is not to be trusted."""
    found = drift.check(subject.live, ledger, subject.cli)
    if found["state"] in ("found", "unknown"):
        raise Refused(f"the database could not be shown to be what {subject.live.id} expects: {found['detail']}")


def prove(subject: Subject) -> dict[str, str]:
    """Success is only what was read back."""
    ledger = subject.ledger()
    found = drift.check(subject.release, ledger or {}, subject.cli)
    schema_rollback.verify(ledger, subject.release, found, subject.where.schema)
    return found


def before_commit(run: Run) -> Callable[[str], Any]:
    """Journal a transaction's number while it can still be rolled back: with it the server tells what became of it."""
    journal = Journal(os.path.join(run.state_dir, "journal", f"{run.id}.jsonl"))
    return lambda number: journal.append(run.id, run.fence, "schema.commit", "intent", {"transaction": number})


def deployed(module: AnsibleModule, subject: Subject) -> dict[str, Any]:
    """Apply what is pending, then bring back what was set aside."""
    if not subject.cli.argv:
        raise BadInput("prisma: state deployed needs the command, for example [node_modules/.bin/prisma]")
    name = module.params["restore_archive"]
    if name:
        archive.checked_name(name, "restore_archive")
    ledger = subject.ledger()
    pending = pending_migrations(ledger, subject.release)
    waiting = subject.ask(lambda cursor: restore.unrestored(cursor, name)) if name else []
    if waiting and not pending:
        subject.ask(lambda cursor: restore.refuse_homeless(cursor, waiting))
    restored: list[dict[str, Any]] = []
    found = drift.result("not checked", "nothing was changed")
    if not module.check_mode:
        if pending or waiting:
            restored = deploy(module, subject, pending, name)
        found = prove(subject)
        ledger = subject.ledger()
    changed = bool(pending) or any(each["reason"] != restore.BEFORE and each["restored"] for each in restored)
    result = subject.result(ledger, migrations=prisma.states(ledger or {}, subject.release), drift=found)
    diff = {"prepared": "".join(f"-- prisma migrate deploy: {migration}\n" for migration in pending)}
    changed = changed or (module.check_mode and bool(waiting))
    return {**result, "changed": changed, "deployed": pending, "restored": restored, "diff": diff}


def pending_migrations(ledger: Any, release: prisma.Release) -> list[str]:
    ahead, missing, unclear = prisma.compare(ledger or {}, release)
    if unclear or ahead:
        unknown = [f"{name}: the release does not know it" for name in ahead]
        raise Refused("; ".join([*unclear, *unknown]))
    return missing


def deploy(module: AnsibleModule, subject: Subject, pending: list[str], name: str | None) -> list[dict[str, Any]]:
    run = Run.of(module.params["run"])
    restored: list[dict[str, Any]] = []
    with run.change("schema.deployed", {"pending": pending, "restore": name}) as change:
        if pending:
            patient = subject.cli._replace(seconds=module.params["wait"])
            answer = prisma_cli.ask(patient, subject.release, ["migrate", "deploy"])
            if answer.code != 0:
                raise Held(f"prisma migrate deploy did not succeed: {answer.said}", "Look at state status.")
        if name:
            work = transaction.Transaction(subject.where, module.params["wait"], [], before_commit(run))
            restored = work.run(lambda cursor: restore.restore(cursor, name))
        change.outcome = {"restored": restored}
    return restored


STATES = {"status": status, "compatible": compatible, "rolled_back": rolled_back, "deployed": deployed}


def work(module: AnsibleModule) -> dict[str, Any]:
    return STATES[module.params["state"]](module, Subject(module.params))


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[
            ("state", "status", ("release",)),
            ("state", "rolled_back", ("release", "live")),
            ("state", "deployed", ("release",)),
        ],
        required_one_of=[("release", "releases_dir")],
        supports_check_mode=True,
    )
    finish(module, work)


if __name__ == "__main__":
    main()
