"""Find in a written runbook the shell lines that do not do what they seem to."""
from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

_TRAPS = Path(__file__).with_name("traps.yml")
_SHELLS = ("", "bash", "console", "sh", "shell", "zsh")
_SECOND_CD = {
    "trap": "second-cd",
    "said": "after the first cd this directory is not there: what follows happens in the one before",
    "instead": "rollback run full_system",
}

Finding = dict[str, Any]


def findings(text: str) -> list[Finding]:
    """The traps of a runbook in Markdown, each as {line (from 1), command, trap, said, instead}."""
    found = []
    for token in MarkdownIt().parse(text):
        if token.type == "fence" and token.info.strip() in _SHELLS and token.map:
            commands = list(_commands(token.content, token.map[0] + 2))
            found += [*_single(commands), *_second_cd(commands)]
    return sorted(found, key=lambda finding: finding["line"])


@cache
def traps() -> list[dict[str, str]]:
    """What is dangerous, as traps.yml says it."""
    loaded: list[dict[str, str]] = yaml.safe_load(_TRAPS.read_text())
    return loaded


def _commands(block: str, first: int) -> Iterator[tuple[int, str]]:
    """Each command of a block with its line, continued lines joined."""
    command, begun = "", first
    for number, line in enumerate(block.splitlines(), first):
        begun = begun if command else number
        command += line.rstrip().removesuffix("\\")
        if line.rstrip().endswith("\\"):
            continue
        if command.strip():
            yield begun, command.strip()
        command = ""


def _single(commands: list[tuple[int, str]]) -> Iterator[Finding]:
    """What is dangerous in a command by itself."""
    for line, command in commands:
        for trap in traps():
            if _is_met(trap, command):
                yield {"line": line, "command": command, "trap": trap["name"], **_advice(trap)}


def _is_met(trap: dict[str, str], command: str) -> bool:
    about_comments = "^#" in trap["pattern"]
    if command.startswith("#") and not about_comments:
        return False
    harmless = "unless" in trap and re.search(trap["unless"], command)
    return bool(re.search(trap["pattern"], command)) and not harmless


def _advice(trap: dict[str, str]) -> dict[str, str]:
    return {"said": trap["said"], "instead": trap["instead"]}


def _second_cd(commands: list[tuple[int, str]]) -> Iterator[Finding]:
    """A relative cd after another one, which did not come back."""
    moved = [(line, command) for line, command in commands if re.match(r"cd\s+[^/~$.\s]", command)]
    for line, command in moved[1:]:
        yield {"line": line, "command": command, **_SECOND_CD}
