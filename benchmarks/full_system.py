"""The full system rollback against the runbook's own script, made to work: seconds until users are served again."""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from ansible_collections.marketsage.rollback.sandbox import build, scenarios, stack
from ansible_collections.marketsage.rollback.sandbox.layout import DEFAULT_PORT_BASE, Layout
from race import BIN, REPOSITORY

PORT_BASE = DEFAULT_PORT_BASE + 4700
GOOD = "v1.1.0"
REASON = "the API answers 500 and the admin portal is gone"
_LONGEST = 600

# "Full System Rollback" of the runbook, with what its lines leave out: dependencies, which host, which release it is.
SCRIPT = r"""
set -eu
check_out() {
  rm -rf "$1"
  git clone --quiet "$2" "$1"
  cd "$1"
  git checkout --quiet "$3"
  printf '{"release": "%s", "commit": "%s", "ref": "%s"}' "$(printf %.12s "$3")" "$3" "$REF" > release.json
  npm ci --ignore-scripts --no-audit --no-fund --prefer-offline >/dev/null
  npm run build >/dev/null 2>&1
}
backend() {
  check_out "$1/marketsage-backend" "$1/repository.git" "$BACKEND"
  ln -sfn marketsage-backend "$1/current"
  PM2_HOME="$1/.pm2" pm2 restart marketsage-backend >/dev/null
}
frontend() {
  check_out "$1/marketsage-frontend" "$1/repository.git" "$FRONTEND"
  deploy
}
for host in $HOSTS; do
  (PATH=$ROLLBACK_SANDBOX/hosts/$host/bin:$PATH; backend "$ROLLBACK_SANDBOX/hosts/$host") &
done
wait
(PATH=$ROLLBACK_SANDBOX/workshop/bin:$PATH; frontend "$ROLLBACK_SANDBOX/workshop")
"""
WAYS = {
    "runbook's script": ["sh", "-c", SCRIPT],
    "ansible-playbook": [
        "ansible-playbook", "playbooks/full_system.yml", "-e", "severity=P0", "-e", f'reason="{REASON}"',
    ],
    "rollback run": ["rollback", "run", "full_system", "-s", "P0", "-r", REASON],
}  # fmt: skip


def environment(layout: Layout) -> dict[str, str]:
    engine = layout.host(layout.hosts[0]) / "bin" / "schema-engine"
    commits = {service.upper(): build.release(layout.origin, service, GOOD).commit for service in stack.SERVICES}
    return {
        **os.environ, **commits,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ROLLBACK_SANDBOX": str(layout.directory),
        "HOSTS": " ".join(layout.hosts),
        "REF": GOOD,
        "CHROME_BIN": "",
        "PRISMA_SCHEMA_ENGINE_BINARY": str(engine),
        "PRISMA_QUERY_ENGINE_LIBRARY": str(engine),
        "CHECKPOINT_DISABLE": "1",
        "NEXT_TELEMETRY_DISABLED": "1",
    }  # fmt: skip


def lap(layout: Layout, way: list[str]) -> float:
    """Break everything and roll it back; seconds from Enter until users have everything again."""
    stack.reset(layout, lambda _line: None)
    scenarios.break_(layout, "full-system", lambda _line: None)
    assert not stack.everything_answers(layout)
    # npm leaves a pipe that it shares with others in a state in which Ansible does not start.
    said = layout.directory / "benchmark.log"
    began = time.monotonic()
    with said.open("w") as log:
        process = subprocess.Popen(
            way, cwd=REPOSITORY, env=environment(layout), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    while not stack.everything_answers(layout):
        if time.monotonic() - began > _LONGEST or process.poll() not in (None, 0):
            why = said.read_text()[-2000:]
            raise SystemExit(f"{way[0]} did not bring everything back; it ended with {process.poll()}: {why}")
        time.sleep(0.1)
    healed = time.monotonic() - began
    if process.wait(_LONGEST) != 0:
        raise SystemExit(f"{way[0]} ended with {process.returncode}")
    return healed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    directory = Path(tempfile.mkdtemp(prefix="rollback-bench-"))
    layout = Layout(directory, PORT_BASE)
    laps: dict[str, list[float]] = {name: [] for name in WAYS}
    try:
        stack.up(layout, lambda _line: None)
        for _round in range(rounds):
            for name, way in WAYS.items():
                laps[name].append(lap(layout, way))
    finally:
        stack.down(layout)
        shutil.rmtree(directory, ignore_errors=True)
    floor = median(laps["runbook's script"])
    for name, seconds in laps.items():
        print(f"{name:18}{median(seconds):8.1f} s{median(seconds) / floor:8.2f}   load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
