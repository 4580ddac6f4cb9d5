# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_dump and pg_restore. A password reaches them by PGPASSFILE, a private file without a name."""
from __future__ import annotations

import os
import tempfile
from typing import Any, Callable, NamedTuple

from ansible_collections.marketsage.rollback.plugins.module_utils import command
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Held
from ansible_collections.marketsage.rollback.plugins.module_utils.postgres import Server

# The sessions of a tool that outlived a killed run are known by it.
APPLICATION_NAME = "marketsage.rollback tool"
_OPTIONS = "-c default_transaction_read_only=off -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"


class Tools(NamedTuple):
    """Where the programs are (empty: on the PATH), how many jobs they may use, and whom to tell how far they are."""

    directory: str
    jobs: int
    say: Callable[[str], None]

    def dump(self, server: Server, directory: str, snapshot: str) -> None:
        """Dump the server's database into a new directory, as it was in an exported snapshot."""
        options = ["--format=directory", f"--jobs={self.jobs}", f"--snapshot={snapshot}", f"--file={directory}"]
        self._run(server, server.database, "pg_dump", options, lambda: self._tell_size("dumped", directory))

    def restore(self, server: Server, directory: str, database: str) -> None:
        """Restore a dump into an empty database."""
        options = ["--format=directory", f"--jobs={self.jobs}", "--exit-on-error", "--no-password", directory]
        self._run(server, database, "pg_restore", options, lambda: self._tell_growth(server, database))

    def _run(
        self, server: Server, database: str, tool: str, options: list[str], watch: Callable[[], None]
    ) -> None:
        argv = [os.path.join(self.directory, tool), "--dbname", server.conninfo(database, password=None), *options]
        with tempfile.TemporaryFile("w") as passwords:
            passwords.write(f"*:*:*:*:{_escaped(server.password)}\n")
            passwords.flush()
            environment = {
                **command.kept_environment(),
                "LC_ALL": "C",
                "PGPASSFILE": f"/dev/fd/{passwords.fileno()}",
                "PGAPPNAME": APPLICATION_NAME,
                "PGOPTIONS": _OPTIONS,
            }
            code, output = command.execute(
                tool, argv, "/", environment, server.deadline, pass_fds=[passwords.fileno()], watch=watch
            )
        if code != 0:
            raise Held(f"{tool} ended with {code}: {command.tail(output) or 'it said nothing'}")

    def _tell_size(self, what: str, directory: str) -> None:
        self.say(f"{what}: {megabytes(size_of(directory))} so far")

    def _tell_growth(self, server: Server, database: str) -> None:
        with server.connect() as connection:
            query = "SELECT pg_database_size(datname) FROM pg_database WHERE datname = ANY(%s) ORDER BY datname = %s"
            sizes = [size for (size,) in connection.execute(query, ([server.database, database], database)).fetchall()]
        self.say(f"restored: {megabytes(sizes[-1])} so far; the live database has {megabytes(sizes[0])}")


def end_orphans(connection: Any, database: str) -> None:
    """End what tools of a killed run still do in a database."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND datname = %s"
    connection.execute(query, (APPLICATION_NAME, database))


def size_of(directory: str) -> int:
    """Bytes of all files below a directory."""
    paths = [os.path.join(parent, name) for parent, _none, names in os.walk(directory) for name in names]
    return sum(os.lstat(path).st_size for path in paths if os.path.lexists(path))


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")
