#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_recovery
short_description: Replace a damaged PostgreSQL database by a proven backup of it
description:
  - The damaged database is never written to. The backup is restored into a new database beside it, verified there, and
    takes its name in one transaction. The damaged one is kept under a dated name until O(state=absent) drops it.
  - Databases are known by their oid, so a run that was killed anywhere, also between or around the two renames, is
    gone on with by the same call.
  - What going back to the backup loses is counted row by row, by primary key (by the whole row where a table has
    none), from hashes that the server computes and those kept in the backup.
  - Settings of the database and of roles in it, connection limit, owner, grants and comment are carried over.
version_added: 0.1.0
author: MarketSage (@marketsage)
requirements:
  - psycopg >= 3
  - pg_restore, not older than the server that the backup was taken from
options:
  state:
    description:
      - V(compared) chooses the backup and counts what going back to it would lose now. Changes nothing.
      - V(restored) restores it into a new database beside the live one and compares every table with the manifest.
      - V(verified) lets O(verify_command) look at the new database, and counts what is lost.
      - V(live) swaps the two, if what is lost was agreed to. The database must be fenced.
      - V(withdrawn) drops the new database again; refused when it is live already.
      - V(absent) drops the old database O(name) that was kept.
    type: str
    required: true
    choices: [compared, restored, verified, live, withdrawn, absent]
  database_url_file:
    description:
      - File, readable by its owner alone, with the database's URL as Prisma takes it, for a superuser.
      - The role must be able to connect to the database C(postgres) of the same server.
    type: path
    required: true
  directory:
    description: Where M(marketsage.rollback.postgres_backup) keeps the backups.
    type: path
    required: true
  backup:
    description: The id of the backup; empty for the newest that is whole.
    type: str
    default: ""
  accept_loss:
    description:
      - The agreement to lose rows, C(ROWS@BACKUP), at most so many by going back to that backup, or C(unknown@BACKUP).
      - Without it O(state=live) goes back only if nothing is lost.
    type: str
    default: ""
  name:
    description: The old database to drop. Required with O(state=absent).
    type: str
  application_url_file:
    description: File, readable by its owner alone, with the URL the application uses. Required with O(state=verified).
    type: path
  verify_command:
    description:
      - The application's own check, for example V([npm, run, db:verify]). It gets the URL of the new database in the
        environment as C(DATABASE_URL), and must exit 0.
    type: list
    elements: str
    default: []
  verify_dir:
    description: Where it is run, for example the live release. Needed with O(verify_command).
    type: path
  verify_environment:
    description: Variables for it.
    type: dict
    default: {}
  bin_dir:
    description: Directory with pg_restore; empty for the one on the PATH.
    type: str
    default: ""
  jobs:
    description: How many tables are restored at the same time.
    type: int
    default: 2
  timeout:
    description: Seconds for the whole work.
    type: int
    default: 3600
attributes:
  check_mode:
    description: Tells what would be done.
    support: full
  diff_mode:
    description: What is lost is told in RV(loss).
    support: none
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: What would going back to the newest backup lose?
  marketsage.rollback.postgres_recovery:
    state: compared
    database_url_file: /etc/rollback/admin_database_url
    directory: /var/backups/marketsage

- name: Restore the backup beside the damaged database
  marketsage.rollback.postgres_recovery:
    state: restored
    database_url_file: /etc/rollback/admin_database_url
    directory: /var/backups/marketsage
    backup: marketsage-20261125T031500Z-3f9a
    run: "{{ rollback_run }}"

- name: Drop the damaged database that was kept
  marketsage.rollback.postgres_recovery:
    state: absent
    name: marketsage_before_20261125t081500z
    database_url_file: /etc/rollback/admin_database_url
    directory: /var/backups/marketsage
    run: "{{ rollback_run }}"
"""

RETURN = r"""
database:
  description: The database's name.
  returned: success
  type: str
backup:
  description: The backup, as M(marketsage.rollback.postgres_backup) lists it.
  returned: when O(state) is not V(withdrawn) or V(absent)
  type: dict
loss:
  description: What the database has and the backup has not.
  returned: when O(state) is V(compared), V(verified) or V(live)
  type: dict
  contains:
    known:
      description: Whether it could be counted.
      type: bool
    why:
      description: Why it could not.
      type: str
    rows:
      description: Rows that are lost.
      type: int
    tables:
      description: For each table that differs, how many rows are C(lost), C(changed) since, and C(returned).
      type: dict
told:
  description: The same in lines for a human.
  returned: when O(state) is V(compared), V(verified) or V(live)
  type: list
  elements: str
migrations_lost:
  description: How many migrations the database has that the backup lacks.
  returned: when O(state=compared)
  type: int
restored_before:
  description: Whether the live database was restored from this very backup.
  returned: when O(state=compared)
  type: bool
restored:
  description: The new database beside the live one.
  returned: when O(state) is V(restored), V(verified) or V(live)
  type: str
verification:
  description: C(foreign_keys), how many are valid, and what C(verify_command) said.
  returned: when O(state=verified)
  type: dict
kept:
  description: The old databases that were kept.
  returned: success
  type: list
  elements: str
progress:
  description: What was done, line by line.
  returned: success
  type: list
  elements: str
exit_code:
  description: The exit code that a run ends with because of this failure.
  returned: failure
  type: int
advice:
  description: What to do next.
  returned: failure
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import (
    backups,
    command,
    data_loss,
    database_fence,
    postgres,
    recovery,
    side_database,
    table_contents,
    validate,
)
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held, Refused, finish
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret
from ansible_collections.marketsage.rollback.plugins.module_utils.postgres_tools import Tools
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

ARGUMENTS = {
    "state": {
        "type": "str",
        "required": True,
        "choices": ["compared", "restored", "verified", "live", "withdrawn", "absent"],
    },
    "database_url_file": {"type": "path", "required": True},
    "directory": {"type": "path", "required": True},
    "backup": {"type": "str", "default": ""},
    "accept_loss": {"type": "str", "default": ""},
    "name": {"type": "str"},
    "application_url_file": {"type": "path"},
    "verify_command": {"type": "list", "elements": "str", "default": []},
    "verify_dir": {"type": "path"},
    "verify_environment": {"type": "dict", "default": {}},
    "bin_dir": {"type": "str", "default": ""},
    "jobs": {"type": "int", "default": 2},
    "timeout": {"type": "int", "default": 3600},
    "run": RUN_ARGUMENT,
}


class Subject:
    """The database, its backups, and how far its recovery has come."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.server = self.server_of("database_url_file")
        self.store = backups.Store(self.params["directory"])
        self.memory = recovery.Memory(self.store.directory, self.server.database)
        self.progress: list[str] = []

    def server_of(self, name: str) -> postgres.Server:
        path = validate.absolute_path(self.params[name], name)
        return postgres.Server(read_secret(path, name), validate.positive(self.params["timeout"], "timeout"), name)

    def backup(self) -> backups.Backup:
        return self.store.find(self.server.database, self.params["backup"])

    def say(self, line: str) -> None:
        self.progress.append(line)
        self.module.log(line)

    def tools(self) -> Tools:
        return Tools(self.params["bin_dir"], validate.positive(self.params["jobs"], "jobs"), self.say)

    def names(self) -> recovery.Names:
        return recovery.Names.of(self.server.database, Run.of(self.params["run"]).id)

    def oids(self) -> dict[str, int]:
        with self.server.connect() as connection:
            return {name: int(row["oid"]) for name, row in postgres.databases(connection).items()}

    def mine(self) -> dict[str, Any]:
        """What this run has done so far; Refused where that is nothing."""
        memory = self.memory.load()
        if memory.get("run") != Run.of(self.params["run"]).id:
            raise Refused("state: this run has not restored a backup; call it with state restored first")
        return memory


def compared(subject: Subject) -> dict[str, Any]:
    backup, memory = subject.backup(), subject.memory.load()
    lost = recovery.loss(subject.server, backup)
    live = subject.oids().get(subject.server.database)
    came_from = memory.get("backup") if live is not None and memory.get("live_oid") == live else None
    return {
        "changed": False,
        "backup": backup.shown(),
        "loss": lost,
        "told": data_loss.lines(lost),
        "migrations_lost": recovery.migrations_lost(lost),
        "restored_before": came_from == backup.manifest["id"],
    }


def restored(subject: Subject) -> dict[str, Any]:
    """Restore beside, unless this run has."""
    backup, names = subject.backup(), subject.names()
    run, memory, oids = Run.of(subject.params["run"]), subject.memory.load(), subject.oids()
    done = memory.get("run") == run.id and memory["new_oid"] in (oids.get(names.restored), oids.get(names.live))
    result = {"backup": backup.shown(), "restored": names.restored, "changed": not done}
    if done or subject.module.check_mode:
        return result
    intent = {"backup": backup.manifest["id"], "sha256": backup.manifest["sha256"], "into": names.restored}
    with run.change("database.restored", intent) as change:
        oid = recovery.restore(subject.server, subject.tools(), backup, names)
        subject.memory.begin(run=run.id, backup=backup.manifest["id"], old_oid=oids[names.live], new_oid=oid)
        change.outcome = {"database": names.restored, "oid": oid}
    return result


def verified(subject: Subject) -> dict[str, Any]:
    """Let the application look at the new database, and count what the old one has more, unless that is done."""
    memory, backup, names = subject.mine(), subject.backup(), subject.names()
    done = "verification" in memory
    if not done and not subject.module.check_mode:
        with Run.of(subject.params["run"]).change("database.verified", {"database": names.restored}) as change:
            facts = {"verification": verify(subject, names), "loss": recovery.loss(subject.server, backup)}
            memory, change.outcome = subject.memory.keep(**facts), facts
    lost = memory.get("loss", {"known": False, "why": "check mode", "rows": 0, "tables": {}})
    told = data_loss.lines(lost)
    for line in [] if done else told:
        subject.say(line)
    verification = memory.get("verification", {})
    return {
        "changed": not done,
        "backup": backup.shown(),
        "restored": names.restored,
        "verification": verification,
        "loss": lost,
        "told": told,
    }


def verify(subject: Subject, names: recovery.Names) -> dict[str, Any]:
    with subject.server.connect(names.restored) as connection:
        table_contents.steady(connection)
        keys = table_contents.foreign_keys(connection)
    said = ""
    if subject.params["verify_command"]:
        argv = command.words(subject.params["verify_command"], "verify_command")
        directory = validate.absolute_path(subject.params["verify_dir"], "verify_dir")
        environment, application = subject.params["verify_environment"], subject.server_of("application_url_file")
        said = recovery.run_command(argv, directory, environment, application, names.restored)
        subject.say(f"verify_command is content with {names.restored}: {said}")
    return {"foreign_keys": sum(keys.values()), "verify_command": said}


def live(subject: Subject) -> dict[str, Any]:
    """Swap, unless that is done; what is lost was agreed to."""
    memory, backup, names = subject.mine(), subject.backup(), subject.names()
    if "loss" not in memory:
        raise Refused("state: the restored database has not been verified; call it with state verified first")
    result = {"backup": backup.shown(), "loss": memory["loss"], "restored": names.live}
    result["told"] = data_loss.lines(memory["loss"])
    swapped = subject.oids().get(names.live) == memory["new_oid"]
    if swapped and memory.get("live_oid") == memory["new_oid"]:
        return {**result, "changed": False}
    if not swapped:
        refuse_unagreed(subject, backup, memory["loss"])
    if subject.module.check_mode:
        return {**result, "changed": True}
    with subject.server.connect() as connection:
        put_in_place(subject, connection, names, swapped)
    return {**result, "changed": True}


def refuse_unagreed(subject: Subject, backup: backups.Backup, lost: data_loss.Loss) -> None:
    name = backup.manifest["id"]
    if not data_loss.is_agreed(lost, name, data_loss.agreement(subject.params["accept_loss"])):
        run_id = Run.of(subject.params["run"]).id
        raise Held(
            f"{data_loss.sentence(lost)}; that was not agreed to. Are they to be given up?",
            f"rollback resume {run_id} -e accept_loss={data_loss.proposal(lost, name)} (nothing is written meanwhile); "
            f"or leave the database as it is: rollback resume {run_id} -e give_up=true",
        )


def put_in_place(subject: Subject, connection: Any, names: recovery.Names, swapped: bool) -> None:
    """Swap by rename and prove it by reading back."""
    memory = subject.memory.load()
    if not swapped and "fence" not in memory:
        fence = database_fence.read(connection, names.live)
        if not database_fence.is_shut(fence):
            raise Refused(f"database {names.live} is not fenced, so what is written to it now would be lost unseen")
        memory = subject.memory.keep(fence=fence)
    intent = {"live": memory["new_oid"], "kept": names.kept, "accept_loss": subject.params["accept_loss"]}
    with Run.of(subject.params["run"]).change("database.live", intent) as change:
        if not swapped:
            recovery.swap(connection, subject.server, names, memory["fence"])
        found = {name: int(row["oid"]) for name, row in postgres.databases(connection).items()}
        if (found.get(names.live), found.get(names.kept)) != (memory["new_oid"], memory["old_oid"]):
            raise Held(f"database {names.live}: swapped, and this was read back: {found}")
        if differs := recovery.unlike(connection, names.live, names.kept):
            raise Held(f"database {names.live}: not carried over: {', '.join(differs)}")
        subject.memory.keep(live_oid=memory["new_oid"])
        change.outcome = {"live": memory["new_oid"], "kept": names.kept, "loss": memory["loss"]}


def withdrawn(subject: Subject) -> dict[str, Any]:
    """Drop the new database, which never became the live one."""
    names, memory, oids = subject.names(), subject.memory.load(), subject.oids()
    if memory.get("run") == Run.of(subject.params["run"]).id and oids.get(names.live) == memory["new_oid"]:
        raise Refused(f"give_up: the restored database is live already; the old one is {names.kept}")
    changed = names.restored in oids
    if changed and not subject.module.check_mode:
        with Run.of(subject.params["run"]).change("database.withdrawn", {"database": names.restored}) as change:
            with subject.server.connect() as connection:
                side_database.drop(connection, names.restored)
            change.outcome = {"dropped": names.restored}
    return {"changed": changed}


def absent(subject: Subject) -> dict[str, Any]:
    """Drop an old database that was kept, unless it is gone."""
    name = subject.params["name"]
    recovery.check_kept(subject.server.database, name)
    changed = name in subject.oids()
    if changed and not subject.module.check_mode:
        with Run.of(subject.params["run"]).change("database.dropped", {"database": name}) as change:
            with subject.server.connect() as connection:
                side_database.drop(connection, name)
            change.outcome = {"dropped": name}
    return {"changed": changed}


STATES = {
    "compared": compared,
    "restored": restored,
    "verified": verified,
    "live": live,
    "withdrawn": withdrawn,
    "absent": absent,
}


def work(module: AnsibleModule) -> dict[str, Any]:
    subject = Subject(module)
    result = STATES[module.params["state"]](subject)
    with subject.server.connect() as connection:
        kept = recovery.beside(connection, subject.server.database, "before")
    return {**result, "database": subject.server.database, "kept": kept, "progress": subject.progress}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "verified", ["application_url_file"]), ("state", "absent", ["name"])],
        supports_check_mode=True,
    )
    finish(module, work)


if __name__ == "__main__":
    main()
