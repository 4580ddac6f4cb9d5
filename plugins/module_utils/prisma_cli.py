# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prisma's own command line, versions 5 to 7. A URL is given by the environment alone: arguments everybody can read."""
from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Refused
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_json
from ansible_collections.marketsage.rollback.plugins.module_utils.inverse import Rename
from ansible_collections.marketsage.rollback.plugins.module_utils.prisma import Release

SCHEMA = "prisma/schema.prisma"
_DATABASE_FLAGS = ["--from-schema-datasource", SCHEMA, "--to-schema-datamodel", SCHEMA]
# By major version: the release's database against its schema.prisma, and what introduces a schema file.
DATABASE_FLAGS = {
    5: _DATABASE_FLAGS,
    6: _DATABASE_FLAGS,
    7: ["--from-config-datasource", "--to-schema", SCHEMA],
}
FILE_FLAGS = {
    5: ("--from-schema-datamodel", "--to-schema-datamodel"),
    6: ("--from-schema-datamodel", "--to-schema-datamodel"),
    7: ("--from-schema", "--to-schema"),
}
_URL_VARIABLE = re.compile(r'^\s*url\s*=\s*env\("(\w+)"\)', re.MULTILINE)
_URL_LINES = re.compile(r"^\s*(?:url|directUrl|shadowDatabaseUrl)\s*=.*\n", re.MULTILINE)
_DATASOURCE = re.compile(r"^[ \t]*datasource\s+\w+\s*\{\s*\n", re.MULTILINE)
_BLOCKS = {
    kind: re.compile(rf"^[ \t]*{kind}\s+(\w+)\s*\{{.*?^[ \t]*\}}", re.MULTILINE | re.DOTALL)
    for kind in ("model", "enum")
}
_LINES = {
    "model": re.compile(r"^[ \t]+(\w+)[ \t]+\w[^\n]*", re.MULTILINE),
    "enum": re.compile(r"^[ \t]+(\w+)(?![\w.])[^\n]*", re.MULTILINE),
}
_BEFORE_COMMENT = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^"/]|/(?!/))*')
_SHOWN_CHARACTERS = 2000


class Cli(NamedTuple):
    """How it is started, and the URL of the database it is asked about, with Prisma's own parameters."""

    argv: list[str]
    environment: dict[str, str]
    url: str
    seconds: float


class Answer(NamedTuple):
    """Its exit code, None where it was not started or did not end, and what it said or why it did not."""

    code: int | None
    said: str


def major_version(release: Release) -> int | None:
    """Of the CLI that the release brings along; None where it is none that is known here."""
    package: dict[str, Any] = read_json(os.path.join(release.path, "node_modules", "prisma", "package.json"), {})
    major = str(package.get("version", "")).partition(".")[0]
    return int(major) if major.isdigit() and int(major) in DATABASE_FLAGS else None


def ask(cli: Cli, release: Release, arguments: list[str]) -> Answer:
    """Run it in a release's directory."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    urls = {"DATABASE_URL": cli.url, _url_variable(release): cli.url}
    # A file and no pipe: the CLI's own children could hold a pipe open beyond the time-out.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                [*cli.argv, *arguments],
                cwd=release.path,
                env={**inherited, **cli.environment, **urls},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Answer(None, f"{cli.argv[0]} cannot be started ({error.strerror})")
        code = _wait(process, cli.seconds)
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip()
    if code is None:
        return Answer(None, f"no answer within {cli.seconds:g} s")
    return Answer(code, _without_password(said, cli.url))


def down_script(cli: Cli, live: Release, target: Release, renames: list[Rename]) -> str:
    """SQL from the live release's schema.prisma, its renames taken back, to the target's; Refused without an answer."""
    major = major_version(live)
    if major is None or not cli.argv:
        raise Refused("prisma: the command of a supported version is needed to compute how to undo these migrations")
    with tempfile.TemporaryDirectory() as directory:
        script = os.path.join(directory, "down.sql")
        files = [os.path.join(directory, name) for name in ("from.prisma", "to.prisma")]
        texts = [with_renames_undone(_schema_of(live), renames), _schema_of(target)]
        for file, text in zip(files, texts):
            with open(file, "w") as opened:
                opened.write(as_version(text, major))
        sides = [word for pair in zip(FILE_FLAGS[major], files) for word in pair]
        answer = ask(cli, live, ["migrate", "diff", *sides, "--script", "--output", script])
        if answer.code != 0:
            raise Refused(f"prisma cannot compare the two releases' schema.prisma: {answer.said}")
        with open(script) as opened:
            return opened.read()


def as_version(schema: str, major: int) -> str:
    """A schema file that this version reads: 7 forbids the datasource's url, the others demand one."""
    without = _URL_LINES.sub("", schema)
    if major >= 7:
        return without
    return _DATASOURCE.sub(lambda found: f'{found.group()}  url = env("DATABASE_URL")\n', without, count=1)


def with_renames_undone(schema: str, renames: list[Rename]) -> str:
    """The schema with tables, columns, enums and values mapped to the names they had; the latest is undone first."""
    for rename in reversed(renames):
        blocks = _BLOCKS[rename.block].finditer(schema)
        named = [found for found in blocks if _mapped_name(found, "@@map") == rename.table[-1]]
        for block in named[:1]:
            changed = _with_old_name(block, rename)
            schema = schema[: block.start()] + changed + schema[block.end() :]
    return schema


def _with_old_name(found: re.Match[str], rename: Rename) -> str:
    block = found.group()
    if not rename.column:
        without = re.sub(r"\n[ \t]*@@map\([^)]*\)", "", block)
        return f'{without[:-1]}  @@map("{rename.old}")\n}}'
    for field in _LINES[rename.block].finditer(block):
        if _mapped_name(field, "@map") == rename.column:
            line = re.sub(r"(?<!@)@map\([^)]*\)", "", field.group())
            words = _BEFORE_COMMENT.match(line)
            end = words.end() if words else len(line)
            mapped = f'{line[:end].rstrip()} @map("{rename.old}") {line[end:]}'
            return block[: field.start()] + mapped.rstrip() + block[field.end() :]
    return block


def _mapped_name(found: re.Match[str], attribute: str) -> str:
    """What the database calls a model or a field."""
    mapped = re.search(rf'(?<!@){attribute}\((?:name:\s*)?"([^"]+)"', found.group())
    return mapped.group(1) if mapped else found.group(1)


def _schema_of(release: Release) -> str:
    try:
        with open(os.path.join(release.path, SCHEMA)) as file:
            return file.read()
    except OSError as error:
        raise Refused(f"{release.path}/{SCHEMA} cannot be read ({error.strerror})") from None


def _url_variable(release: Release) -> str:
    named = _URL_VARIABLE.search(_schema_of(release))
    return named.group(1) if named else "DATABASE_URL"


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
