"""A backend rollback under load, by turns: a bare shell script of the same steps, ansible-playbook, rollback run."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ansible_collections.marketsage.rollback.sandbox import deploy, stack
from ansible_collections.marketsage.rollback.sandbox.layout import Layout
from ansible_collections.marketsage.rollback.sandbox.load import Load

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
GOOD, BAD = "v1.1.0", "v1.2.1-bad-errors"
REASON = "lists answer 500"
_MACHINE_PORT = 3000
_LONGEST = 600

# What an engineer would type, all hosts at once: page, then on each link, restart and health, page off. No lock, no
# record, no proof.
SCRIPT = r"""
set -eu
page() { python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); s.recv(99)' \
  "$ROLLBACK_SANDBOX/haproxy/admin.sock" "set map $ROLLBACK_SANDBOX/haproxy/maintenance.map all $1
"; }
on() { if [ "$MACHINES" = 0 ]; then sh -c "$2"; else ssh -F "$ROLLBACK_SANDBOX/ssh/config" "$1" "$2"; fi; }
page on
for place in $HOSTS; do
  on "${place%:*}" "
    cd '$ROLLBACK_SANDBOX/hosts/${place%:*}'
    ln -sfn 'releases/$TARGET' current
    PM2_HOME=\$PWD/.pm2 PATH=\$PWD/bin:\$PATH bin/pm2 restart marketsage-backend >/dev/null
    until curl --silent --fail --output /dev/null http://127.0.0.1:${place#*:}/api/v2/health; do sleep 0.05; done" &
done
wait
page off
"""


@dataclass(frozen=True)
class Lap:
    """One rollback: seconds since Enter, how often the page was met, and answers to what was sent after it went up."""

    page: float
    good: float
    end: float
    pages: int
    bad: int
    errors: int


def ways(layout: Layout) -> dict[str, list[str]]:
    inventory = ["-i", str(layout.inventory)] if layout.machines else []
    said = ["-e", "severity=P0", "-e", f'reason="{REASON}"']
    return {
        "bare script": ["sh", "-c", SCRIPT],
        "ansible-playbook": ["ansible-playbook", *inventory, "playbooks/backend.yml", *said],
        "rollback run": ["rollback", "run", "backend", *inventory, "-s", "P0", "-r", REASON],
    }


def environment(layout: Layout) -> dict[str, str]:
    lines = (layout.host(layout.hosts[0]) / "revisions.jsonl").read_text().splitlines()
    target = next(revision for revision in map(json.loads, lines) if revision["ref"] == GOOD)
    ports = {host: _MACHINE_PORT if layout.machines else layout.port(host) for host in layout.hosts}
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ROLLBACK_SANDBOX": str(layout.directory),
        "MACHINES": str(layout.machines),
        "HOSTS": " ".join(f"{host}:{port}" for host, port in ports.items()),
        "TARGET": target["release"],
    }


def lap(layout: Layout, way: list[str], rate: float) -> Lap:
    """Deploy the bad release and roll it back, `rate` requests a second meanwhile."""
    deploy.deploy(layout, "backend", BAD)
    with Load(layout, rate=rate, services=["api"]) as load:
        time.sleep(1)
        began = time.time()
        subprocess.run(
            way, cwd=REPOSITORY, env=environment(layout), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, check=True, timeout=_LONGEST,
        )  # fmt: skip
        ended = time.time()
        time.sleep(1)
        result = load.stop()
    turning, since = result["turning_points"], result["started"] - began
    return Lap(
        page=since + turning["first_page"],
        good=since + turning["first_good_after"],
        end=ended - began,
        pages=result["kinds"]["maintenance"],
        bad=turning["bad_sent_after_page"],
        errors=sum(turning["errors_sent_after_page"].values()),
    )


def race(port_base: int, machines: int, rate: float, rounds: int) -> None:
    """Race in a sandbox of its own, and print the medians of each way and their ratios to the script's."""
    directory = Path(tempfile.mkdtemp(prefix="rollback-bench-"))
    layout = Layout(directory, port_base, machines)
    laps: dict[str, list[Lap]] = {name: [] for name in ways(layout)}
    try:
        stack.up(layout, lambda _line: None)
        for _round in range(rounds):
            for name, way in ways(layout).items():
                laps[name].append(lap(layout, way, rate))
    finally:
        stack.down(layout)
        shutil.rmtree(directory, ignore_errors=True)
    _report(f"{len(layout.hosts)} hosts, {rate:g}/s", laps)


def _report(title: str, laps: dict[str, list[Lap]]) -> None:
    load = os.getloadavg()[0]
    print(f"{title:18} page up  first good  ratio    the end  ratio  pages   bad  errors   load {load:.1f}")
    floor = laps["bare script"]
    for name, mine in laps.items():
        page, good, end = (median(getattr(one, what) for one in mine) for what in ("page", "good", "end"))
        against_good, against_end = (median(getattr(one, what) for one in floor) for what in ("good", "end"))
        print(
            f"{name:18}{page:6.2f} s{good:10.2f} s{good / against_good:7.2f}{end:9.2f} s{end / against_end:7.2f}"
            f"{sum(one.pages for one in mine):7}{sum(one.bad for one in mine):6}{sum(one.errors for one in mine):8}",
            flush=True,
        )
