"""The collection as ansible-galaxy builds and installs it, used from an empty directory."""
from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
INVENTORY = """all:
  vars: {rollback_environment: elsewhere, rollback_control_dir: %s}
  children: {backend: {hosts: {}}}
"""
# What an execution environment has anyway, and what only the rollback command needs.
COMMAND_LINE = ("ansible-core", "ansible-runner", "click", "pyyaml", "markdown-it-py", "rich")
WORKSHOP = {"sandbox", "tests", "wrapper", "molecule", "benchmarks", "collections"}


def ansible(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Ansible's as somebody who has nothing but the installed collection."""
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "False",
        "ANSIBLE_CALLBACKS_ENABLED": "marketsage.rollback.outcome",
    }
    return subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built")
    built = ansible(directory, "ansible-galaxy", "collection", "build", str(REPOSITORY), "--output-path", ".")
    assert built.returncode == 0, built.stderr
    return next(directory.glob("marketsage-rollback-*.tar.gz"))


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("empty")
    done = ansible(directory, "ansible-galaxy", "collection", "install", str(tarball), "-p", "collections")
    assert done.returncode == 0, done.stderr
    return directory


def test_it_holds_the_collection_and_nothing_of_the_workshop(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    top = {name.partition("/")[0] for name in names}
    assert {"plugins", "roles", "playbooks", "meta", "README.md", "COPYING", "MANIFEST.json"} <= top
    assert not top & WORKSHOP
    assert not [name for name in top if name.startswith(".")]


def test_every_module_documents_itself(installed: Path) -> None:
    names = [path.stem for path in (REPOSITORY / "plugins" / "modules").glob("*.py")]
    shown = ansible(installed, "ansible-doc", *(f"marketsage.rollback.{name}" for name in names))
    assert shown.returncode == 0, shown.stderr
    assert all(f"marketsage.rollback.{name}" in shown.stdout for name in names)


def test_a_procedure_runs_by_its_full_name(installed: Path) -> None:
    inventory = installed / "hosts.yml"
    inventory.write_text(INVENTORY % (installed / "control"))
    asked = ("ansible-playbook", "marketsage.rollback.backend", "-i", str(inventory), "-e", 'reason="health 500"')
    refused = ansible(installed, *asked, "-e", "severity=P0")
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "REFUSED: localhost: backend: its group has no host in the inventory" in refused.stdout
    misspelt = ansible(installed, *asked, "-e", "severity=P9")
    assert misspelt.returncode == 2, misspelt.stdout + misspelt.stderr
    assert "BAD INPUT: localhost: severity: 'P9' is not one of P0, P1, P2, P3" in misspelt.stdout


def test_an_execution_environment_gets_the_libraries_of_its_modules(installed: Path) -> None:
    found = ansible(installed, "ansible-builder", "introspect", "collections")
    assert found.returncode == 0, found.stderr
    python = {line.partition("  #")[0] for line in yaml.safe_load(found.stdout)["python"]}
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    assert python == {one for one in declared if not one.startswith(COMMAND_LINE)}
