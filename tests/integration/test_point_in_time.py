"""A backup of how the database was earlier, by a real pgBackRest from a real archive of the write-ahead log."""
from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from ansible_collections.marketsage.rollback.plugins.modules import postgres_backup
from ansible_collections.marketsage.rollback.tests.helpers import free_port

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
MISSING = [name for name, there in (("pgbackrest", shutil.which("pgbackrest")), ("postgresql", SERVERS)) if not there]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"apt-get install {' '.join(MISSING)}")
ROWS = "SELECT count(*) FROM \"Order\""


def as_ordinary_user() -> list[str]:
    """PostgreSQL refuses root; in a user namespace root is somebody else."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]


class Cluster:
    """A cluster of Debian's PostgreSQL whose write-ahead log pgBackRest archives."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = str(SERVERS[-1].parent)
        self.port = free_port()
        self.config = directory / "pgbackrest.conf"
        self.url = f"postgresql://admin@127.0.0.1:{self.port}/shop"

    def run(self, *words: str) -> None:
        done = subprocess.run([*as_ordinary_user(), *words], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def backrest(self, *words: str) -> None:
        self.run("pgbackrest", f"--config={self.config}", "--stanza=shop", *words)

    def start(self) -> None:
        data = self.directory / "data"
        self.config.write_text(
            f"[global]\nrepo1-path={self.directory}/repo\nlog-path={self.directory}\nlock-path={self.directory}/lock\n"
            f"spool-path={self.directory}/spool\n"
            f"log-level-file=off\nstart-fast=y\n[shop]\npg1-path={data}\npg1-port={self.port}\npg1-user=admin\n"
            f"pg1-socket-path={self.directory}\n"
        )
        self.run(f"{self.bin}/initdb", "-D", str(data), "-U", "admin", "--auth=trust", "--no-sync")
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "archive_mode": "on",
            "archive_command": f"pgbackrest --config={self.config} --stanza=shop archive-push %p",
            "fsync": "off",
        }
        (data / "postgresql.auto.conf").write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        self.control("start")
        with psycopg.connect(f"postgresql://admin@127.0.0.1:{self.port}/postgres", autocommit=True) as server:
            server.execute("CREATE DATABASE shop")
        self.execute('CREATE TABLE "Order" (id int PRIMARY KEY, note text)')
        self.backrest("stanza-create")
        self.backrest("backup", "--type=full")

    def control(self, action: str, *words: str) -> None:
        log = str(self.directory / "server.log")
        self.run(f"{self.bin}/pg_ctl", "-D", str(self.directory / "data"), "-w", "-l", log, *words, action)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # The paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="pitr-") as directory:
        cluster = Cluster(Path(directory))
        cluster.start()
        # pgBackRest counts in whole seconds: a moment is after a backup in the next one only.
        time.sleep(1.1)
        yield cluster
        cluster.control("stop", "-m", "immediate")


@pytest.fixture
def arguments(cluster: Cluster, run: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    secret = tmp_path / "url"
    secret.write_text(cluster.url)
    secret.chmod(0o600)
    repository = {
        "stanza": "shop",
        "config": str(cluster.config),
        "bin_dir": cluster.bin,
        "work_dir": str(cluster.directory),
        "as_user": as_ordinary_user(),
    }
    backups = {"directory": str(tmp_path / "backups"), "bin_dir": cluster.bin}
    return {"database_url_file": str(secret), "pgbackrest": repository, "run": run, **backups}


def test_a_backup_of_the_moment_before_the_damage(
    cluster: Cluster, arguments: dict[str, Any], call_module: Callable[..., dict[str, Any]]
) -> None:
    cluster.execute("INSERT INTO \"Order\" SELECT i, 'good' FROM generate_series(1, 300) i")
    ((moment,),) = cluster.execute("SELECT clock_timestamp()")
    cluster.execute("DELETE FROM \"Order\" WHERE id > 100")
    cluster.execute("INSERT INTO \"Order\" VALUES (1000, 'after')")
    result = call_module(postgres_backup, state="taken", point_in_time=moment.isoformat(), **arguments)
    assert result.get("changed"), result
    backup = result["backup"]
    assert (backup["state"], backup["rows"]) == ("proven", 300)
    assert backup["taken_at"] == backup["point_in_time"]
    assert cluster.execute(ROWS) == [(101,)]
    assert not list(cluster.directory.glob("rollback_side_*"))


def test_the_command_takes_one_for_a_recovery_to_go_back_to(
    cluster: Cluster, arguments: dict[str, Any], tmp_path: Path
) -> None:
    cluster.execute("INSERT INTO \"Order\" VALUES (2000, 'good')")
    ((rows,),) = cluster.execute(ROWS)
    ((moment,),) = cluster.execute("SELECT clock_timestamp()")
    cluster.execute('DELETE FROM "Order"')
    database = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "database_url_file": arguments["database_url_file"],
        "database_admin_url_file": arguments["database_url_file"],
        "database_releases_dir": str(tmp_path / "releases"),
        "database_live_release": str(tmp_path / "current"),
        "database_prisma": ["prisma"],
        "rollback_backup_directory": arguments["directory"],
        "rollback_backup_bin_dir": arguments["bin_dir"],
        "rollback_pgbackrest": arguments["pgbackrest"],
    }
    control = {"rollback_environment": "shop", "rollback_control_dir": str(tmp_path / "control")}
    state = {"rollback_state_dir": str(tmp_path / "state")}
    inventory = {"all": {"vars": {**control, **state}, "children": {"database": {"hosts": {"shop": database}}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    command = [Path(sys.executable).with_name("rollback"), "run", "backup", "-r", "rows were deleted"]
    taken = subprocess.run(
        [*command, "-e", f"point_in_time={moment.isoformat()}", "-i", tmp_path / "hosts.yml"], capture_output=True,
        stdin=subprocess.DEVNULL, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert taken.returncode == 0, taken.stdout + taken.stderr
    (manifest,) = (json.loads(path.read_text()) for path in Path(arguments["directory"]).glob("*/manifest.json"))
    assert sum(table["rows"] for table in manifest["tables"].values()) == rows


def test_a_side_cluster_of_a_killed_run_is_ended_by_the_next(
    cluster: Cluster, arguments: dict[str, Any], call_module: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    leftover = cluster.directory / "rollback_side_0123456789abcdef"
    cluster.run(f"{cluster.bin}/initdb", "-D", str(leftover), "-U", "admin", "--auth=trust", "--no-sync")
    words = ["-o", f"-c listen_addresses= -c unix_socket_directories={leftover}", "-w", "-l", str(tmp_path / "log")]
    cluster.run(f"{cluster.bin}/pg_ctl", "-D", str(leftover), *words, "start")
    server = int((leftover / "postmaster.pid").read_text().splitlines()[0])
    ((moment,),) = cluster.execute("SELECT clock_timestamp()")
    result = call_module(postgres_backup, state="taken", point_in_time=moment.isoformat(), **arguments)
    assert result["backup"]["state"] == "proven", result
    assert not leftover.exists()
    assert not Path(f"/proc/{server}").exists()


@pytest.mark.parametrize("moment", ["yesterday", "2026-11-25T08:12:00", "2999-01-01T00:00:00+00:00"])
def test_a_time_that_is_none_is_bad_input(
    arguments: dict[str, Any], call_module: Callable[..., dict[str, Any]], moment: str
) -> None:
    result = call_module(postgres_backup, state="taken", point_in_time=moment, **arguments)
    assert result["exit_code"] == 2
    assert result["msg"].startswith("point_in_time: ")


def test_a_time_before_every_backup_leaves_nothing(
    cluster: Cluster, arguments: dict[str, Any], call_module: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = call_module(postgres_backup, state="taken", point_in_time="2020-01-01T00:00:00+00:00", **arguments)
    assert result["exit_code"] == 20, result
    assert not list(cluster.directory.glob("rollback_side_*"))
    assert list((tmp_path / "backups").glob("*")) == []
