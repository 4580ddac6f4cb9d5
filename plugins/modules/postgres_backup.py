#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_backup
short_description: Take a backup of a PostgreSQL database that is proven by a restore, and list those there are
description:
  - C(pg_restore --list) exits 0 on half a dump, so a backup counts here only when it was restored. V(taken) exports a
    snapshot, hashes the rows of every table in it, dumps that very snapshot, restores the dump into a scratch database
    and compares rows and content of every table. Only then the backup gets its name.
  - Whatever goes wrong before (a full disk, a kill, a truncated file) leaves nothing that could be taken for a backup.
    Scratch databases and files of a killed run are removed by the next one.
  - A backup is a directory with C(manifest.json), C(dump/) in the directory format of pg_dump, and C(keys/) with the
    hashes of each table's rows, 16 bytes a row, by which it can be told later what going back to it would lose.
  - The password reaches pg_dump and pg_restore by C(PGPASSFILE), a private file without a name.
  - How far it is goes to the system's log of the host, or to the screen where the module runs inside the controller.
version_added: 0.1.0
author: MarketSage (@marketsage)
requirements:
  - psycopg >= 3
  - pg_dump and pg_restore, not older than the server
options:
  state:
    description:
      - V(listed) reads which backups there are. A backup with a file that is missing or has another size is damaged.
      - V(taken) takes one, unless this run has taken one already.
    type: str
    required: true
    choices: [listed, taken]
  database_url_file:
    description:
      - File, readable by its owner alone, with the database's URL as Prisma takes it, for a role that may read every
        table, create databases and connect to the database C(postgres) of the same server.
    type: path
    required: true
  directory:
    description: Where the backups are. V(taken) makes it.
    type: path
    required: true
  bin_dir:
    description: Directory with pg_dump and pg_restore; empty for those on the PATH.
    type: str
    default: ""
  jobs:
    description: How many tables are dumped and restored at the same time.
    type: int
    default: 2
  point_in_time:
    description:
      - With O(state=taken), the time (ISO 8601, with its zone) at which the database is wanted, instead of now.
      - pgBackRest restores the whole cluster as it was then into a side cluster, which nobody else can reach, and the
        one database is backed up, and its backup proven, there.
    type: str
  pgbackrest:
    description: How pgBackRest is used on this host. Needed with O(point_in_time).
    type: dict
    suboptions:
      stanza:
        description: The stanza of the cluster.
        type: str
        required: true
      config:
        description: pgBackRest's configuration file.
        type: path
        required: true
      bin_dir:
        description: Directory with the server's own programs, of the cluster's version.
        type: path
        required: true
      work_dir:
        description: Directory for the side cluster, with room for the whole cluster.
        type: path
        required: true
      as_user:
        description: Words before each command, for example V([sudo, -u, postgres]); PostgreSQL refuses to run as root.
        type: list
        elements: str
        default: []
  timeout:
    description: Seconds for the whole work.
    type: int
    default: 3600
attributes:
  check_mode:
    description: Takes nothing.
    support: full
  diff_mode:
    description: A backup has nothing to compare with.
    support: none
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Take a proven backup
  marketsage.rollback.postgres_backup:
    state: taken
    database_url_file: /etc/rollback/admin_database_url
    directory: /var/backups/marketsage
    run: "{{ rollback_run }}"

- name: Take a backup of how the database was before the bad job
  marketsage.rollback.postgres_backup:
    state: taken
    point_in_time: "2026-11-25T08:11:59+00:00"
    pgbackrest:
      stanza: marketsage
      config: /etc/pgbackrest/pgbackrest.conf
      bin_dir: /usr/lib/postgresql/15/bin
      work_dir: /var/lib/postgresql
      as_user: [sudo, -u, postgres]
    database_url_file: /etc/rollback/admin_database_url
    directory: /var/backups/marketsage
    run: "{{ rollback_run }}"

- name: List the backups
  marketsage.rollback.postgres_backup:
    state: listed
    database_url_file: /etc/rollback/admin_database_url
    directory: /var/backups/marketsage
"""

RETURN = r"""
backups:
  description: The backups of this database, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Its name.
      type: str
    database:
      description: The database it was taken of.
      type: str
    taken_at:
      description: The time of its snapshot, ISO 8601, UTC.
      type: str
    proven_at:
      description: When the restore was found to be equal to the snapshot, ISO 8601, UTC.
      type: str
    age:
      description: Seconds since its snapshot.
      type: int
    size:
      description: Bytes on disk.
      type: int
    rows:
      description: Rows in all of its tables.
      type: int
    tables:
      description: For each table its C(rows), the C(hash) of its content, and the file with the hashes of its rows.
      type: dict
    sha256:
      description: The checksum over the checksums of all files.
      type: str
    wal_position:
      description: The position in the write-ahead log when the snapshot was taken.
      type: str
    server_version:
      description: The version of PostgreSQL it was taken from.
      type: str
    run:
      description: The run that took it.
      type: str
    point_in_time:
      description: The time that was asked for; null where it was taken of the live database.
      type: str
    path:
      description: Its directory.
      type: str
    state:
      description: C(proven) or C(damaged).
      type: str
    damage:
      description: What is damaged; empty where nothing is.
      type: str
backup:
  description: The backup that was taken, now or earlier by this run; null in check mode.
  returned: when O(state=taken)
  type: dict
progress:
  description: What was done, line by line.
  returned: when O(state=taken)
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
from ansible_collections.marketsage.rollback.plugins.module_utils import backups, pgbackrest, postgres, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import finish
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret
from ansible_collections.marketsage.rollback.plugins.module_utils.postgres_tools import Tools, megabytes
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

ARGUMENTS = {
    "state": {"type": "str", "required": True, "choices": ["listed", "taken"]},
    "database_url_file": {"type": "path", "required": True},
    "directory": {"type": "path", "required": True},
    "bin_dir": {"type": "str", "default": ""},
    "jobs": {"type": "int", "default": 2},
    "point_in_time": {"type": "str"},
    "pgbackrest": pgbackrest.ARGUMENT,
    "timeout": {"type": "int", "default": 3600},
    "run": RUN_ARGUMENT,
}


def taken(module: AnsibleModule, server: postgres.Server, store: backups.Store) -> dict[str, Any]:
    """Take a backup, unless this run has one."""
    if module.check_mode:
        return {"changed": True, "backup": None, "progress": []}
    run = Run.of(module.params["run"])
    earlier = [one for one in store.all(server.database) if one.manifest["run"] == run.id and not one.damage()]
    if earlier:
        return {"changed": False, "backup": earlier[0].shown(), "progress": []}
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        module.log(line)

    tools = Tools(module.params["bin_dir"], validate.positive(module.params["jobs"], "jobs"), say)
    origin = {"id": backups.new_id(server.database), "run": run.id}
    with run.change("backup.taken", {**origin, "database": server.database, "directory": store.directory}) as change:
        if module.params["point_in_time"]:
            backup = taken_at(module, server, store, tools, origin).shown()
        else:
            backup = backups.take(server, store, tools, origin).shown()
        say(f"backup {backup['id']} is proven: {backup['rows']} rows, {megabytes(backup['size'])}")
        change.outcome = {key: backup[key] for key in ("id", "sha256", "size", "taken_at", "wal_position")}
    return {"changed": True, "backup": backup, "progress": said}


def taken_at(
    module: AnsibleModule, server: postgres.Server, store: backups.Store, tools: Tools, origin: dict[str, Any]
) -> backups.Backup:
    """Take a backup of how the database was earlier."""
    moment = pgbackrest.point_in_time(module.params["point_in_time"])
    repository = pgbackrest.PgBackRest.of(module.params["pgbackrest"])
    told = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with repository.cluster(server, moment, tools) as side:
        return backups.take(side, store, tools, {**origin, "taken_at": told, "point_in_time": told})


def work(module: AnsibleModule) -> dict[str, Any]:
    seconds = validate.positive(module.params["timeout"], "timeout")
    path = validate.absolute_path(module.params["database_url_file"], "database_url_file")
    server = postgres.Server(read_secret(path, "database_url_file"), seconds)
    store = backups.Store(module.params["directory"])
    result = taken(module, server, store) if module.params["state"] == "taken" else {"changed": False}
    return {**result, "backups": [one.shown() for one in store.all(server.database)]}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_by={"point_in_time": "pgbackrest"}, supports_check_mode=True
    )
    finish(module, work)


if __name__ == "__main__":
    main()
