"""The critical backend rollback against a bare shell script that does the same steps, by turns, under load.

Prints the median seconds from Enter to the first good answer, the ratio to the script, and the answers by kind.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.marketsage.rollback.sandbox import scenarios, stack
from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE, HOSTS, Layout
from ansible_collections.marketsage.rollback.sandbox.load import Load

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PORT_BASE = DEFAULT_PORT_BASE + 4500
RATE = 100
GOOD = "v1.1.0"
REASON = "health answers 500"

# What an engineer would type, both hosts at once: page, link, restart, health, page off. No lock, no record, no proof.
SCRIPT = r"""
set -eu
page() { python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); s.recv(99)' \
  "$SANDBOX/haproxy/admin.sock" "set map $SANDBOX/haproxy/maintenance.map all $1
"; }
page on
for host in $HOSTS; do
  ( cd "$SANDBOX/hosts/$host"
    ln -sfn "releases/$TARGET" current
    PM2_HOME=$PWD/.pm2 PATH=$PWD/bin:$PATH bin/pm2 restart marketsage-backend >/dev/null ) &
done
wait
for port in $PORTS; do
  until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/api/v2/health"; do sleep 0.05; done
done
page off
"""


def shell(layout: Layout) -> list[str]:
    return ["sh", "-c", SCRIPT]


def playbook(layout: Layout) -> list[str]:
    return ["ansible-playbook", "playbooks/backend.yml", "-e", "severity=P0", "-e", f'reason="{REASON}"']


def command(layout: Layout) -> list[str]:
    return ["rollback", "run", "backend", "-s", "P0", "-r", REASON]


WAYS: dict[str, Callable[[Layout], list[str]]] = {
    "bare script": shell,
    "ansible-playbook": playbook,
    "rollback run": command,
}


def environment(layout: Layout) -> dict[str, str]:
    target = json.loads((layout.host(HOSTS[0]) / "revisions.jsonl").read_text().splitlines()[1])
    assert target["ref"] == GOOD
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ROLLBACK_SANDBOX": str(layout.directory),
        "SANDBOX": str(layout.directory),
        "HOSTS": " ".join(HOSTS),
        "PORTS": " ".join(str(layout.port(host)) for host in HOSTS),
        "TARGET": target["release"],
    }


def measure(layout: Layout, way: Callable[[Layout], list[str]]) -> dict[str, Any]:
    """Break, roll back under load, and return the load's result with `seconds` from Enter to the first good answer."""
    stack.reset(layout, lambda _line: None)
    scenarios.break_(layout, "backend-500", lambda _line: None)
    with Load(layout, rate=RATE, services=["api"]) as load:
        time.sleep(1)
        began = time.time()
        subprocess.run(
            way(layout), cwd=REPOSITORY, env=environment(layout), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, check=True, timeout=120,
        )  # fmt: skip
        time.sleep(1)
        result = load.stop()
    turning = result["turning_points"]
    return {
        **result,
        "seconds": result["started"] + turning["first_good_after"] - began,
        "page_after": result["started"] + turning["first_page"] - began,
    }


def report(results: dict[str, list[dict[str, Any]]]) -> None:
    floor = statistics.median(result["seconds"] for result in results["bare script"])
    print(f"{'':18}{'first good':>12}{'ratio':>8}{'page after':>12}{'page':>8}{'bad':>6}{'errors':>8}  after the page")
    for name, rounds in results.items():
        seconds = statistics.median(result["seconds"] for result in rounds)
        page_after = statistics.median(result["page_after"] for result in rounds)
        page, bad, errors = (
            sum(values) for values in zip(*(after_page(result) for result in rounds), strict=True)
        )
        print(
            f"{name:18}{seconds:10.2f} s{seconds / floor:8.2f}{page_after:10.2f} s{page:8d}{bad:6d}{errors:8d}"
        )


def after_page(result: dict[str, Any]) -> tuple[int, int, int]:
    """Pages, answers of the bad release, and errors to requests that were sent after the page went up."""
    turning = result["turning_points"]
    return result["kinds"]["maintenance"], turning["bad_sent_after_page"], turning["errors_sent_after_page"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    directory = Path(tempfile.mkdtemp(prefix="rollback-bench-"))
    layout = Layout(directory, PORT_BASE)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    try:
        stack.up(layout, lambda _line: None)
        for number in range(rounds):
            for name, way in WAYS.items():
                results[name].append(measure(layout, way))
                print(f"round {number + 1}: {name}: {results[name][-1]['seconds']:.2f} s", flush=True)
    finally:
        stack.down(layout)
        shutil.rmtree(directory, ignore_errors=True)
    report(results)


if __name__ == "__main__":
    main()
