"""The wheel as pip installs it, used from an empty directory: it is the command and the collection in one."""
from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
INVENTORY = """all:
  vars:
    rollback_environment: elsewhere
    rollback_control_dir: %s
    rollback_people: {ines: {name: Ines Falk, role: engineer, on_call: Primary, phone: "+15005550011"}}
  children: {backend: {hosts: {}}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel in it, and with what the wheel depends on from this one."""
    built, directory = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", built, REPOSITORY], check=True, timeout=300)
    (wheel,) = built.glob("marketsage_rollback-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True, timeout=60)
    (site,) = directory.glob("lib/python*/site-packages")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, timeout=300)
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return directory / "bin/python"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "hosts.yml").write_text(INVENTORY % (tmp_path / "control"))
    return tmp_path


def rollback(installed: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as somebody who has nothing but the installed wheel and what it depends on."""
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
    }
    program = "from ansible_collections.marketsage.rollback.wrapper.cli import main; main()"
    return subprocess.run(
        [installed, "-c", program, *arguments], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_playbook_is_run_by_what_the_wheel_brings(installed: Path, empty: Path) -> None:
    found = rollback(installed, empty, "oncall", "--inventory", "hosts.yml")
    assert (found.returncode, "Ines Falk" in found.stdout) == (0, True), found.stdout + found.stderr


def test_a_plan_is_refused_where_there_is_nothing_to_roll_back(installed: Path, empty: Path) -> None:
    words = ("plan", "backend", "-s", "P0", "-r", "health answers 500", "--inventory", "hosts.yml")
    refused = rollback(installed, empty, *words)
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "backend: its group has no host in the inventory" in refused.stdout


def test_who_names_no_inventory_and_has_no_sandbox_is_told_what_to_say(installed: Path, empty: Path) -> None:
    refused = rollback(installed, empty, "status")
    said = " ".join(refused.stderr.split())
    assert refused.returncode == 2 and "there is no sandbox at" in said and "$ROLLBACK_INVENTORY" in said


def test_why_ansible_could_not_even_begin_is_told(installed: Path, empty: Path) -> None:
    (empty / "hosts.yml").write_text("all: {children: [backend]}\n")
    failed = rollback(installed, empty, "oncall", "--inventory", "hosts.yml")
    assert failed.returncode and "FAILED with exit code" in failed.stderr, failed.stdout + failed.stderr
    assert "hosts.yml" in failed.stderr and "Traceback" not in failed.stderr, failed.stderr


def test_the_written_runbook_is_in_it(installed: Path, empty: Path) -> None:
    assert "## Critical backend rollback" in rollback(installed, empty, "runbook", "backend").stdout
