"""The monitoring stack in real containers: a compose project on podman, with an image of Debian's own Prometheus."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from ansible_collections.marketsage.rollback.sandbox import debian, processes, servers
from ansible_collections.marketsage.rollback.sandbox.layout import HOSTS, Layout
from ansible_collections.marketsage.rollback.sandbox.origins import git, repository
from ansible_collections.marketsage.rollback.sandbox.processes import SandboxError

SERVICE = "monitoring"
# What the monitoring host has been on before anything goes wrong.
HISTORY = ("v1.0.0", "v1.1.0")
HEALTHY = {"marketsage-backend": {"up"}, "haproxy": {"up"}}
_IMAGE = "localhost/marketsage/prometheus"
_TAGS = ("1", "1-next")
_SECONDS = 120
# Where limits and control groups of containers are not what podman expects, as inside of another container.
_CONFINED = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def why_not() -> str | None:
    """Why no containers can be had here; None where they can."""
    if os.geteuid() != 0:
        return "containers need root here"
    if not shutil.which("podman"):
        return "podman is not installed"
    if not Path(sys.executable).with_name("podman-compose").exists():
        return "podman-compose is not installed beside this Python"
    if debian.program("prometheus", "prometheus") is None:
        return "there is no Prometheus to put into a container"
    try:
        return None if _settings() is not None else "podman cannot start a container here"
    except SandboxError as error:
        return str(error)


@cache
def _settings() -> str | None:
    """The containers.conf with which podman starts a container here; None where it does with none."""
    for settings in ("", _CONFINED):
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(settings)
            file.flush()
            command = ["run", "--rm", "--network=host", _image(_TAGS[0]), "--version"]
            if _podman(*command, extra={"CONTAINERS_CONF": file.name}).returncode == 0:
                return settings
    return None


def _podman(*arguments: str, extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **(extra or {})}
    return subprocess.run(
        ["podman", *arguments], env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def _image(tag: str) -> str:
    """An image of Debian's Prometheus, made where this machine does not have it; the next one differs by its label."""
    name = f"{_IMAGE}:{tag}"
    if _podman("image", "exists", name).returncode != 0:
        with tempfile.TemporaryDirectory() as directory:
            _fill(Path(directory))
            start = 'ENTRYPOINT ["/bin/prometheus"]'
            command = f'tar -C "$1" -cf - . | podman import -q -c \'{start}\' -c "LABEL revision=$2" - "$3"'
            made = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command, "import", directory, tag, name],
                capture_output=True, text=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
        if made.returncode != 0:
            raise SandboxError(f"podman: could not import {name}: {made.stderr.strip()}")
    return name


def _fill(root: Path) -> None:
    """Debian's Prometheus and the libraries that it is linked with."""
    program = debian.program("prometheus", "prometheus")
    linked = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout.split()
    for source in [str(program), *(word for word in linked if word.startswith("/"))]:
        target = root / "bin" / "prometheus" if source == str(program) else root / source[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    for name in ("tmp", "etc/prometheus", "prometheus"):
        (root / name).mkdir(parents=True)


def up(layout: Layout) -> None:
    """Make the monitoring host and bring it from its first revision to its last good one; SandboxError if it cannot."""
    if reason := why_not():
        raise SandboxError(f"monitoring: {reason}")
    down(layout)
    (layout.monitoring / "data" / "prometheus").mkdir(parents=True)
    (layout.monitoring / "containers.conf").write_text(_settings() or "")
    (layout.monitoring / "promtool").symlink_to(str(debian.program("prometheus", "promtool")))
    checkout = _checkout(layout)
    origin = repository(layout.origin, SERVICE)
    git(origin, "clone", "--quiet", "--branch", HISTORY[0], str(origin), str(checkout))
    _write_local_files(layout, checkout)
    for ref in HISTORY:
        deploy(layout, ref)
    processes.wait_until(layout, "compose", lambda: health(layout) == HEALTHY, 30)


def _checkout(layout: Layout) -> Path:
    return layout.monitoring / "marketsage-monitoring"


def _write_local_files(layout: Layout, checkout: Path) -> None:
    digests = [_podman("image", "inspect", "--format", "{{.Digest}}", _image(tag)).stdout.strip() for tag in _TAGS]
    values = {
        "PROMETHEUS_IMAGE": f"{_IMAGE}@{digests[0]}",
        "PROMETHEUS_NEXT_IMAGE": f"{_IMAGE}@{digests[1]}",
        "GRAFANA_IMAGE": f"{_IMAGE}@{digests[0]}",
        "PROMETHEUS_PORT": layout.port("monitoring"),
        "GRAFANA_PORT": layout.port("dashboards"),
        "DATA": layout.monitoring / "data",
    }
    (checkout / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    workers = [f"127.0.0.1:{layout.port(f'{host}-metrics') + number}" for host in HOSTS for number in range(2)]
    (checkout / "targets").mkdir()
    for name, targets in {"backend": workers, "haproxy": [f"127.0.0.1:{layout.port('haproxy_stats')}"]}.items():
        (checkout / "targets" / f"{name}.json").write_text(json.dumps([{"targets": targets}]))


def deploy(layout: Layout, ref: str) -> None:
    """Put a revision live the way MarketSage does: check it out, compose up, have Prometheus read its files again."""
    checkout = _checkout(layout)
    git(checkout / ".git", f"--work-tree={checkout}", "checkout", "--quiet", "--detach", ref)
    processes.run(
        layout, "compose", [*_compose(layout), "up", "-d"], seconds=_SECONDS, extra=_variables(layout), cwd=checkout
    )
    processes.wait_until(layout, "compose", lambda: _reloads(layout), 20)


def _compose(layout: Layout) -> list[str]:
    return [str(Path(sys.executable).with_name("podman-compose")), "-p", project(layout)]


def project(layout: Layout) -> str:
    """The compose project's name; two sandboxes on one machine have two."""
    return f"marketsage-monitoring-{layout.port_base}"


def _variables(layout: Layout) -> dict[str, str]:
    return {"CONTAINERS_CONF": str(layout.monitoring / "containers.conf")}


def _reloads(layout: Layout) -> bool:
    answer = servers.ask(layout.url("monitoring") + "/-/reload", method="POST")
    return answer is not None and answer.is_success


def health(layout: Layout) -> dict[str, set[str]]:
    """What the stack's Prometheus says of the targets of each job: up, down, unknown; empty if it does not answer."""
    answer = servers.ask(layout.url("monitoring") + "/api/v1/targets")
    try:
        targets = answer.json()["data"]["activeTargets"] if answer else []
    except ValueError:
        return {}
    jobs = {target["labels"]["job"] for target in targets}
    return {job: {one["health"] for one in targets if one["labels"]["job"] == job} for job in jobs}


def started(layout: Layout) -> dict[str, str]:
    """The id of the container that runs for each service of the stack."""
    wanted = f"label=com.docker.compose.project={project(layout)}"
    shown = '{{index .Labels "com.docker.compose.service"}} {{.ID}}'
    lines = _podman("ps", "--filter", wanted, "--format", shown).stdout.splitlines()
    return dict(line.split(" ") for line in lines)  # type: ignore[misc]


def down(layout: Layout) -> None:
    """Remove the stack's containers and its host's directory; nothing happens where there are none."""
    if not layout.monitoring.exists():
        return
    wanted = f"label=com.docker.compose.project={project(layout)}"
    if ids := _podman("ps", "--all", "--quiet", "--filter", wanted).stdout.split():
        removed = _podman("rm", "--force", "--time", "2", *ids, extra=_variables(layout))
        if removed.returncode != 0:
            raise SandboxError(f"podman: could not remove the stack's containers: {removed.stderr.strip()}")
    shutil.rmtree(layout.monitoring)
