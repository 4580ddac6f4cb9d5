#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_fence
short_description: Shut every application out of a PostgreSQL database, and let it in again
description:
  - A read-only default is no fence. Sessions that are open keep writing, any session unsets it, and a role that owns
    its tables, as Prisma's does, can grant itself again what was revoked. So the fence shuts the door.
  - V(fenced) sets C(CONNECTION LIMIT 0), which keeps out every role but superusers, and makes every transaction
    read-only by default, for the database and for each role that has a setting of its own. Sessions are ended.
  - Where the application's role is a superuser, V(fenced) also sets C(ALLOW_CONNECTIONS false), and nobody connects.
  - Readers are shut out too. Only a superuser can read meanwhile, in RV(readable_by).
  - The proof is an attempt to write as the application, unsetting the read-only default first.
  - What was there before is remembered in the run's C(state_dir) until V(open) has restored it.
version_added: 0.1.0
author: MarketSage (@marketsage)
requirements:
  - psycopg >= 3
options:
  state:
    description:
      - V(fenced) shuts the door and proves it.
      - V(open) restores what was there before, and proves that the application can write.
    type: str
    required: true
    choices: [fenced, open]
  database_url_file:
    description:
      - File, readable by its owner alone, with the database's URL as Prisma takes it, for a superuser or the
        database's owner. The owner also needs the right to end sessions (C(pg_signal_backend)).
      - The role must be able to connect to the database C(postgres) of the same server.
    type: path
    required: true
  application_url_file:
    description:
      - File, readable by its owner alone, with the URL the application uses for the same database.
      - It may lead through a pooler that hands on what the server says.
    type: path
    required: true
  timeout:
    description: Seconds for the whole work.
    type: int
    default: 60
attributes:
  check_mode:
    description: Shows what would be set.
    support: full
  diff_mode:
    description: Shows who may connect and what is read-only.
    support: full
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Put the database in read-only mode
  marketsage.rollback.postgres_fence:
    state: fenced
    database_url_file: /etc/rollback/admin_database_url
    application_url_file: /etc/rollback/database_url
    run: "{{ rollback_run }}"

- name: Take it out of read-only mode
  marketsage.rollback.postgres_fence:
    state: open
    database_url_file: /etc/rollback/admin_database_url
    application_url_file: /etc/rollback/database_url
    run: "{{ rollback_run }}"
"""

RETURN = r"""
database:
  description: The database's name.
  returned: success
  type: str
fenced:
  description: Whether the application is shut out, as it was read back; in check mode, whether it would be.
  returned: success
  type: bool
readable_by:
  description: C(everybody), C(superusers) or C(nobody).
  returned: success
  type: str
before:
  description:
    - C(connections_allowed), C(connection_limit) and, by role, C(read_only), as they were. The role C("") stands for
      the database itself, and null for no setting.
  returned: success
  type: dict
after:
  description: The same as it was read back; in check mode, as it would be.
  returned: success
  type: dict
sessions_ended:
  description: How many sessions were ended.
  returned: success
  type: int
probe:
  description: What became of the attempt to write as the application; null in check mode.
  returned: success
  type: dict
  contains:
    connected:
      description: Whether it could connect.
      type: bool
    wrote:
      description: Whether it could write. What it wrote was taken back.
      type: bool
    said:
      description: What the server said.
      type: str
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
from ansible_collections.marketsage.rollback.plugins.module_utils import database_fence, postgres, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held, Unknown, finish
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

ARGUMENTS = {
    "state": {"type": "str", "required": True, "choices": ["fenced", "open"]},
    "database_url_file": {"type": "path", "required": True},
    "application_url_file": {"type": "path", "required": True},
    "timeout": {"type": "int", "default": 60},
    "run": RUN_ARGUMENT,
}


def secret(parameters: dict[str, Any], name: str) -> str:
    return read_secret(validate.absolute_path(parameters[name], name), name)


def fenced(module: AnsibleModule, server: postgres.Server, connection: Any) -> dict[str, Any]:
    """Shut the door, unless it is shut and holds."""
    application = database_fence.Application(secret(module.params, "application_url_file"), server)
    before = database_fence.read(connection, server.database)
    wanted = database_fence.shut(before, application.is_superuser(connection))
    open_sessions = postgres.sessions(connection, server.database)
    changed = before != wanted or open_sessions > 0
    if module.check_mode:
        return result(server, changed, before, wanted)
    if not changed:
        probe = application.try_to_write(rogue=True)
        database_fence.check_shut_out(probe)
        return result(server, False, before, before, probe=probe)
    run = Run.of(module.params["run"])
    with run.change("database_fenced", {"database": server.database, "before": before}) as change:
        database_fence.Memory(run.state_dir, server.database).keep(before)
        database_fence.apply(connection, server.database, wanted)
        ended = postgres.end_sessions(connection, server.deadline, server.database)
        after = read_back(connection, server, wanted)
        probe = application.try_to_write(rogue=True)
        database_fence.check_shut_out(probe)
        change.outcome = {"after": after, "sessions_ended": ended, "probe": probe.said}
    return result(server, True, before, after, probe=probe, ended=ended)


def opened(module: AnsibleModule, server: postgres.Server, connection: Any) -> dict[str, Any]:
    """Restore what was there before the fence, unless nothing is left to restore."""
    application = database_fence.Application(secret(module.params, "application_url_file"), server)
    run = Run.of(module.params["run"])
    memory = database_fence.Memory(run.state_dir, server.database)
    before, wanted = database_fence.read(connection, server.database), memory.load()
    if wanted is None and database_fence.is_shut(before):
        raise Unknown(
            f"database {server.database} is shut, and this host does not remember how it was before. "
            "What were its connection limit and its settings?"
        )
    if wanted is None or module.check_mode:
        return result(server, wanted is not None, before, wanted or before)
    with run.change("database_opened", {"database": server.database, "to": wanted}) as change:
        database_fence.apply(connection, server.database, wanted)
        after = read_back(connection, server, wanted)
        probe = application.try_to_write(rogue=False)
        if not database_fence.is_shut(wanted):
            database_fence.check_let_in(probe)
        memory.forget()
        change.outcome = {"after": after, "probe": probe.said}
    return result(server, True, before, after, probe=probe)


def read_back(connection: Any, server: postgres.Server, wanted: database_fence.State) -> database_fence.State:
    seen = database_fence.read(connection, server.database)
    differs = [name for name in ("connections_allowed", "connection_limit") if seen[name] != wanted[name]]
    differs += [role for role, value in wanted["read_only"].items() if seen["read_only"].get(role) != value]
    if differs:
        raise Held(f"database {server.database}: wanted {wanted}, and this was read back: {seen}")
    return seen


def result(
    server: postgres.Server,
    changed: bool,
    before: database_fence.State,
    after: database_fence.State,
    *,
    probe: database_fence.Probe | None = None,
    ended: int = 0,
) -> dict[str, Any]:
    readers = "everybody" if not database_fence.is_shut(after) else "superusers"
    return {
        "changed": changed,
        "database": server.database,
        "fenced": database_fence.is_shut(after),
        "readable_by": readers if after["connections_allowed"] else "nobody",
        "before": before,
        "after": after,
        "sessions_ended": ended,
        "probe": probe._asdict() if probe else None,
        "diff": {"before": before, "after": after},
    }


STATES = {"fenced": fenced, "open": opened}


def work(module: AnsibleModule) -> dict[str, Any]:
    parameters = module.params
    seconds = validate.positive(parameters["timeout"], "timeout")
    server = postgres.Server(secret(parameters, "database_url_file"), seconds)
    with server.connect() as connection:
        return STATES[parameters["state"]](module, server, connection)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    finish(module, work)


if __name__ == "__main__":
    main()
