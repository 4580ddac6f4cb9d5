#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: prisma_migrate
short_description: Tell whether a release can run on the database as it is
description:
  - Compares Prisma's ledger in the database with the migrations of releases, in a read-only transaction.
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
    type: str
    required: true
    choices: [status, compatible]
  database_url_file:
    description:
      - File, readable by its owner alone, with the database's URL as Prisma takes it.
      - The parameter C(schema) tells where the ledger is; what only Prisma understands is not passed on.
    type: path
    required: true
  release:
    description:
      - Directory of the release to compare with, with C(prisma/migrations).
      - One of O(release) and O(releases_dir) is required; O(state=status) needs O(release).
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
    type: path
  prisma:
    description:
      - Command of Prisma's CLI, run in O(live), where the database is ahead of a release, to find changes made by hand.
      - Without it RV(drift.state) is V(not checked).
    type: list
    elements: str
    default: []
  environment:
    description: Environment variables for O(prisma). The database's URL is added.
    type: dict
    default: {}
  timeout:
    description: Seconds to wait for the database, and for O(prisma).
    type: float
    default: 30
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: Nothing is ever changed, so there is nothing to compare.
    support: none
  platform:
    description: Where it runs.
    support: full
    platforms: posix
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
  returned: when O(state=status)
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
  description: Whether the database differs from the live release's C(schema.prisma).
  returned: when O(state=compatible)
  type: dict
  contains:
    state:
      description: C(none), C(found), C(unknown) (asked without success) or C(not checked).
      type: str
    detail:
      description: Why it was not checked, or what Prisma said.
      type: str
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import drift, prisma, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import finish
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret

ARGUMENTS = {
    "state": {"type": "str", "required": True, "choices": ["status", "compatible"]},
    "database_url_file": {"type": "path", "required": True},
    "release": {"type": "path"},
    "releases_dir": {"type": "path"},
    "live": {"type": "path"},
    "prisma": {"type": "list", "elements": "str", "default": []},
    "environment": {"type": "dict", "default": {}},
    "timeout": {"type": "float", "default": 30},
}


def release_of(params: dict[str, Any], name: str) -> prisma.Release | None:
    return prisma.Release(validate.absolute_path(params[name], name), name) if params[name] else None


def status(params: dict[str, Any], where: prisma.Database) -> dict[str, Any]:
    release = prisma.Release(validate.absolute_path(params["release"], "release"))
    ledger = read_ledger(where, params["timeout"])
    return {
        "ledger": ledger is not None,
        "schema": where.schema,
        "migrations": prisma.states(ledger or {}, release),
    }


def compatible(params: dict[str, Any], where: prisma.Database, url: str) -> dict[str, Any]:
    release, live = release_of(params, "release"), release_of(params, "live")
    others = prisma.releases_in(params["releases_dir"]) if params["releases_dir"] else []
    sources = [live, *others] if live else others
    ledger = read_ledger(where, params["timeout"])
    verdicts = {
        target.id: prisma.judge(ledger, target, sources, where.schema) for target in ([release] if release else others)
    }
    found = drift.NOT_NEEDED
    if any(verdict.ahead for verdict in verdicts.values()):
        environment = {name: str(value) for name, value in params["environment"].items()}
        cli = drift.Cli(params["prisma"], environment, url, params["timeout"])
        found = drift.check(live, ledger, cli)
    if found["state"] == "found":
        verdicts = {release_id: prisma.despite_drift(verdict) for release_id, verdict in verdicts.items()}
    return {
        "ledger": ledger is not None,
        "schema": where.schema,
        "verdicts": {release_id: asdict(verdict) for release_id, verdict in verdicts.items()},
        "drift": found,
    }


def read_ledger(where: prisma.Database, seconds: float) -> Any:
    with prisma.read_only(where, seconds) as cursor:
        return prisma.read_ledger(cursor, where.schema)


def work(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    url = read_secret(validate.absolute_path(params["database_url_file"], "database_url_file"), "database_url_file")
    where = prisma.database(url)
    found = status(params, where) if params["state"] == "status" else compatible(params, where, url)
    return {"changed": False, **found}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "status", ("release",))],
        required_one_of=[("release", "releases_dir")],
        supports_check_mode=True,
    )
    finish(module, work)


if __name__ == "__main__":
    main()
