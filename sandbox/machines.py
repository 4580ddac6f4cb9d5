"""Backend hosts as machines: each a network, processes and a host name of its own, with a real sshd."""
from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml
from ansible_collections.marketsage.rollback.sandbox import processes
from ansible_collections.marketsage.rollback.sandbox.layout import MACHINE_PORT, Layout
from ansible_collections.marketsage.rollback.sandbox.processes import BadInput, SandboxError

_SANDBOX_INVENTORY = Path(__file__).parents[1] / "inventories" / "sandbox" / "hosts.yml"
_SSHD = "/usr/sbin/sshd"
# Addresses in one network, beside a few that are kept for other use.
_MOST = 240
_SECONDS = 30

# The configuration of a machine's sshd. Its files may lie below /tmp, which StrictModes takes for insecure.
_SSHD_CONFIG = """\
HostKey {keys}/{host}
AuthorizedKeysFile {keys}/operator.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
PidFile none
Subsystem sftp internal-sftp
"""
_SSH_CONFIG = """\
Host *
  User root
  IdentityFile {keys}/operator
  IdentitiesOnly yes
  UserKnownHostsFile {keys}/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
"""
# What root's shell starts with here, which may be much and slow, is not what it starts with there.
_BOOT = 'hostname "$0" && { [ ! -e "$1" ] || mount --bind /dev/null "$1"; } && shift && exec "$@"'


def refuse_impossible(count: int) -> None:
    """BadInput where machines cannot be made here; says what is missing."""
    missing = [program for program in ("ip", "unshare", "ssh", _SSHD) if shutil.which(program) is None]
    if os.geteuid() != 0:
        raise BadInput("machines: only root can make networks; leave --machines out, or run as root")
    if missing:
        raise BadInput(f"machines: {', '.join(missing)} not found; on Debian install iproute2 and openssh-server")
    if count > _MOST:
        raise BadInput(f"machines: {count} is more than the {_MOST} that fit into one network")


def make_network(layout: Layout) -> None:
    """A bridge for the machines, the keys to log in to them with, and the inventory that names them."""
    remove_network(layout)
    _ip(f"link add {_bridge(layout)} type bridge", f"addr add {layout.gateway}/24 dev {_bridge(layout)}",
        f"link set {_bridge(layout)} up")  # fmt: skip
    layout.ssh.mkdir(mode=0o700)
    for name in ("operator", *layout.hosts):
        _make_key(layout.ssh / name)
    for host in layout.hosts:
        (layout.ssh / f"{host}.sshd").write_text(_SSHD_CONFIG.format(keys=layout.ssh, host=host))
    (layout.ssh / "known_hosts").write_text("".join(_known_host(layout, host) for host in layout.hosts))
    addresses = "".join(f"Host {host}\n  HostName {layout.address(host)}\n" for host in layout.hosts)
    (layout.ssh / "config").write_text(addresses + _SSH_CONFIG.format(keys=layout.ssh))
    _write_inventory(layout)


def _make_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=_SECONDS)


def _known_host(layout: Layout, host: str) -> str:
    kind, key, _comment = (layout.ssh / f"{host}.pub").read_text().split()
    return f"{layout.address(host)} {kind} {key}\n"


def _write_inventory(layout: Layout) -> None:
    """The sandbox's inventory, with the machines for its backend hosts; it is of this sandbox alone."""
    inventory = yaml.safe_load(_SANDBOX_INVENTORY.read_text())
    inventory["all"]["vars"] |= {"sandbox_dir": str(layout.directory), "sandbox_port": layout.port_base}
    backend = inventory["all"]["children"]["backend"]
    backend["hosts"] = {
        host: {"ansible_host": layout.address(host), "backend_port": MACHINE_PORT} for host in layout.hosts
    }
    backend["vars"] |= {
        "ansible_connection": "ssh",
        "ansible_ssh_common_args": f"-F {layout.ssh / 'config'}",
        "ansible_control_path_dir": str(layout.ssh / "open"),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    layout.inventory.mkdir()
    (layout.inventory / "hosts.yml").write_text(yaml.safe_dump(inventory, sort_keys=False, explicit_start=True))


def start(layout: Layout, host: str) -> None:
    """Connect a machine to the network and start it; what an earlier one of that name was goes away."""
    _remove(layout, host)
    space, cable = _space(layout, host), _cable(layout, host)
    _ip(f"netns add {space}", f"link add {cable} type veth peer name eth0 netns {space}",
        f"link set {cable} master {_bridge(layout)} up")  # fmt: skip
    _ip(f"addr add {layout.address(host)}/24 dev eth0", "link set eth0 up", "link set lo up", space=space)
    Path("/run/sshd").mkdir(exist_ok=True)
    # With its first process the whole machine ends.
    own = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    sshd = [_SSHD, "-D", "-e", "-f", str(layout.ssh / f"{host}.sshd")]
    boot = ["sh", "-c", _BOOT, host, str(Path.home() / ".bashrc"), *sshd]
    processes.start(layout, host, ["ip", "netns", "exec", space, *own, *boot], lambda: _answers(layout, host))


def _answers(layout: Layout, host: str) -> bool:
    try:
        socket.create_connection((layout.address(host), 22), timeout=1).close()
    except OSError:
        return False
    return True


def there(layout: Layout, host: str, command: list[str], variables: Mapping[str, str], directory: Path) -> list[str]:
    """The command that runs a command on a machine, in a directory and with variables of its own."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    line = f"cd {shlex.quote(str(directory))} && exec {shlex.join(['env', *settings, *command])}"
    return ["ssh", "-F", str(layout.ssh / "config"), host, line]


def cut(layout: Layout, host: str) -> None:
    """Pull the cable of a machine: it runs on, and nobody reaches it any more."""
    _ip(f"link set {_cable(layout, host)} down")


def mend(layout: Layout, host: str) -> None:
    """Plug the cable of a machine in again."""
    _ip(f"link set {_cable(layout, host)} up")


def remove_network(layout: Layout) -> None:
    """Remove the network of a sandbox, and what is left of its machines."""
    for host in layout.hosts:
        _remove(layout, host)
    if _exists(_bridge(layout)):
        _ip(f"link del {_bridge(layout)}")


def _remove(layout: Layout, host: str) -> None:
    if _exists(_cable(layout, host)):
        _ip(f"link del {_cable(layout, host)}")
    if Path("/run/netns", _space(layout, host)).exists():
        _ip(f"netns del {_space(layout, host)}")


def _exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _bridge(layout: Layout) -> str:
    return f"rb{layout.port_base}"


def _cable(layout: Layout, host: str) -> str:
    return f"{_bridge(layout)}-{layout.hosts.index(host) + 1}"


def _space(layout: Layout, host: str) -> str:
    return f"{_bridge(layout)}-{host}"


def _ip(*commands: str, space: str | None = None) -> None:
    """Run commands of iproute2, in a network of its own where one is named."""
    within = ["-n", space] if space else []
    batch = "\n".join(commands)
    done = subprocess.run(
        ["ip", *within, "-batch", "-"], input=batch, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode != 0:
        raise SandboxError(f"ip: {batch!r} failed: {done.stderr.strip()}")
