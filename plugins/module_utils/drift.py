# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the live database is what the live release's schema.prisma says, asked of Prisma's own CLI."""
from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma import Release, Row, states

SCHEMA = "prisma/schema.prisma"
# By major version of the CLI. The URL is given by the environment alone: arguments can be read by everybody.
_SCHEMA_FLAGS = ["--from-schema-datasource", SCHEMA, "--to-schema-datamodel", SCHEMA]
FLAGS = {
    5: _SCHEMA_FLAGS,
    6: _SCHEMA_FLAGS,
    7: ["--from-config-datasource", "--to-schema", SCHEMA],
}
_EXITS = {0: "none", 2: "found"}
_URL_VARIABLE = re.compile(r'^\s*url\s*=\s*env\("(\w+)"\)', re.MULTILINE)
_SHOWN_CHARACTERS = 2000


class Cli(NamedTuple):
    """How Prisma's CLI is started, and the URL of the database it is asked about, with Prisma's own parameters."""

    argv: list[str]
    environment: dict[str, str]
    url: str
    seconds: float


def result(state: str, detail: str) -> dict[str, str]:
    return {"state": state, "detail": detail}


NOT_NEEDED = result("not checked", "the database is ahead of no release that was judged")


def check(live: Release | None, ledger: dict[str, list[Row]], cli: Cli) -> dict[str, str]:
    """`state`: none, found, unknown (asked without success) or not checked; `detail`: why, or what differs."""
    if not live or not cli.argv:
        return result("not checked", "live and prisma were not both given")
    if any(migration["state"] != "applied" for migration in states(ledger, live)):
        return result("not checked", "the database is not at the live release's own migrations")
    major = major_version(live)
    if major not in FLAGS:
        return result("not checked", f"no supported version of Prisma in {live.path}/node_modules")
    environment = {**cli.environment, "DATABASE_URL": cli.url, _url_variable(live): cli.url}
    return _ask([*cli.argv, "migrate", "diff", *FLAGS[major], "--exit-code"], live, environment, cli.seconds)


def major_version(release: Release) -> int | None:
    """Of the Prisma CLI that the release brings along."""
    package: dict[str, Any] = read_json(os.path.join(release.path, "node_modules", "prisma", "package.json"), {})
    major = str(package.get("version", "")).partition(".")[0]
    return int(major) if major.isdigit() else None


def _url_variable(release: Release) -> str:
    with open(os.path.join(release.path, SCHEMA)) as file:
        named = _URL_VARIABLE.search(file.read())
    return named.group(1) if named else "DATABASE_URL"


def _ask(command: list[str], release: Release, environment: dict[str, str], seconds: float) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    # A file and no pipe: the CLI's own children could hold a pipe open beyond the time-out.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=release.path,
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return result("unknown", f"{command[0]} cannot be started ({error.strerror})")
        code = _wait(process, seconds)
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip()
    if code is None:
        return result("unknown", f"no answer within {seconds:g} s")
    return result(_EXITS.get(code, "unknown"), _without_password(said, environment["DATABASE_URL"]))


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def _without_password(text: str, url: str) -> str:
    password = urlsplit(url).password
    for secret in {password, unquote(password)} if password else ():
        text = text.replace(secret, "***")
    return text[-_SHOWN_CHARACTERS:]
