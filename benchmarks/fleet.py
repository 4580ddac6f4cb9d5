"""The critical backend rollback over 1, 5 and 20 machines by real SSH against a parallel bare ssh script, by turns.

Prints for each size the median seconds from Enter to the first good answer, those to the end, and their ratios to the
script's, beside the machine's load. Needs root; every machine runs the real application.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from ansible_collections.marketsage.rollback.sandbox import deploy, machines, stack
from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE, Layout
from ansible_collections.marketsage.rollback.sandbox.load import Load
from ansible_collections.marketsage.rollback.sandbox.processes import BadInput

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PORT_BASE = DEFAULT_PORT_BASE + 4600
RATE = 20
GOOD, BAD = "v1.1.0", "v1.2.1-bad-errors"
REASON = "lists answer 500"

# What an engineer would type, all hosts at once: page, then on each link, restart and health, page off.
SCRIPT = r"""
set -eu
page() { python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); s.recv(99)' \
  "$ROLLBACK_SANDBOX/haproxy/admin.sock" "set map $ROLLBACK_SANDBOX/haproxy/maintenance.map all $1
"; }
page on
for host in $HOSTS; do
  ssh -F "$ROLLBACK_SANDBOX/ssh/config" "$host" "
    cd '$ROLLBACK_SANDBOX/hosts/$host'
    ln -sfn 'releases/$TARGET' current
    PM2_HOME=\$PWD/.pm2 PATH=\$PWD/bin:\$PATH bin/pm2 restart marketsage-backend >/dev/null
    until curl --silent --fail --output /dev/null http://127.0.0.1:3000/api/v2/health; do sleep 0.05; done" &
done
wait
page off
"""


def shell(_layout: Layout) -> list[str]:
    return ["sh", "-c", SCRIPT]


def playbook(layout: Layout) -> list[str]:
    said = ["-e", "severity=P0", "-e", f'reason="{REASON}"']
    return ["ansible-playbook", "-i", str(layout.inventory), "playbooks/backend.yml", *said]


def command(layout: Layout) -> list[str]:
    return ["rollback", "run", "backend", "-i", str(layout.inventory), "-s", "P0", "-r", REASON]


WAYS: dict[str, Callable[[Layout], list[str]]] = {
    "bare ssh script": shell,
    "ansible-playbook": playbook,
    "rollback run": command,
}


def environment(layout: Layout) -> dict[str, str]:
    lines = (layout.host(layout.hosts[0]) / "revisions.jsonl").read_text().splitlines()
    target = next(revision for revision in map(json.loads, lines) if revision["ref"] == GOOD)
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ROLLBACK_SANDBOX": str(layout.directory),
        "HOSTS": " ".join(layout.hosts),
        "TARGET": target["release"],
    }


def measure(layout: Layout, way: Callable[[Layout], list[str]]) -> tuple[float, float]:
    """Deploy the bad release, roll back under load; seconds from Enter to the first good answer, and to the end."""
    deploy.deploy(layout, "backend", BAD)
    with Load(layout, rate=RATE, services=["api"]) as load:
        time.sleep(1)
        began = time.time()
        subprocess.run(
            way(layout), cwd=REPOSITORY, env=environment(layout), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, check=True, timeout=600,
        )  # fmt: skip
        ended = time.time()
        time.sleep(1)
        result = load.stop()
    return result["started"] + result["turning_points"]["first_good_after"] - began, ended - began


def report(size: int, results: dict[str, list[tuple[float, float]]]) -> None:
    floors = [median(values) for values in zip(*results["bare ssh script"], strict=True)]
    for name, rounds in results.items():
        good, end = (median(values) for values in zip(*rounds, strict=True))
        print(
            f"{size:4} hosts  {name:18}{good:8.2f} s{good / floors[0]:7.2f}   {end:8.2f} s{end / floors[1]:7.2f}"
            f"   load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 5, 20])
    arguments = parser.parse_args()
    try:
        machines.refuse_impossible(max(arguments.hosts))
    except BadInput as error:
        print(f"not measured over machines: {error}")
        return
    print(f"{'':30}first good  ratio      the end  ratio")
    for size in arguments.hosts:
        directory = Path(tempfile.mkdtemp(prefix="rollback-bench-"))
        layout = Layout(directory, PORT_BASE, size)
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
        try:
            stack.up(layout, lambda _line: None)
            for _round in range(arguments.rounds):
                for name, way in WAYS.items():
                    results[name].append(measure(layout, way))
        finally:
            stack.down(layout)
            shutil.rmtree(directory, ignore_errors=True)
        report(size, results)


if __name__ == "__main__":
    main()
