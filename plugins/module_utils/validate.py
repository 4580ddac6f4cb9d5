# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Operator's and API's values are data: each has one exact form, checked before anything is done with it."""
from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput

SEVERITIES = ("P0", "P1", "P2", "P3")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _match(name: str, value: Any, pattern: str, wanted: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
        raise BadInput(f"{name}: {_shown(value)} is not {wanted}")
    return value


def _shown(value: Any) -> str:
    return repr(value if len(str(value)) <= 80 else str(value)[:77] + "...")


def severity(value: Any, name: str = "severity") -> str:
    if value not in SEVERITIES:
        raise BadInput(f"{name}: {_shown(value)} is not one of {', '.join(SEVERITIES)}")
    return str(value)


def reason(value: Any, name: str = "reason") -> str:
    """One line a human can read in the record: 3 to 300 printable characters."""
    text = value.strip() if isinstance(value, str) else ""
    if not 3 <= len(text) <= 300 or not text.isprintable():
        raise BadInput(f"{name}: say in one line of 3 to 300 characters why, for example 'health answers 500'")
    return text


def identifier(value: Any, name: str) -> str:
    """The name of a service, component, process, host or person: never an option, a path or a glob."""
    return _match(name, value, r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,99}", "a name of letters, digits, '_', '.', '@' or '-'")


def run_id(value: Any, name: str = "run_id") -> str:
    pattern = r"\d{8}T\d{6}Z-[a-z_]{1,40}-[0-9a-f]{4}"
    return _match(name, value, pattern, "a run, for example 20261124T031500Z-backend-3f9a")


def commit(value: Any, name: str = "commit") -> str:
    return _match(name, value, r"[0-9a-f]{40}", "a full commit of 40 hexadecimal digits")


def release_id(value: Any, name: str = "release") -> str:
    """A release's id: the first 12 hexadecimal digits of its commit."""
    return _match(name, value, r"[0-9a-f]{12}", "a release id of 12 hexadecimal digits")


def ref(value: Any, name: str = "to") -> str:
    """What an operator may call a release: its id, a commit, a tag or a branch; never an expression such as HEAD~1."""
    wanted = "a release id, commit, tag or branch (expressions such as HEAD~1 mean another release each time)"
    text = _match(name, value, r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}", wanted)
    if ".." in text or text.endswith((".lock", "/")) or text == "HEAD":
        raise BadInput(f"{name}: {_shown(value)} is not {wanted}")
    return text


def absolute_path(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or "/../" in f"{value}/":
        raise BadInput(f"{name}: {_shown(value)} is not an absolute path")
    return value


def relative_path(value: Any, name: str) -> str:
    """A path inside a release or repository: never an option, never one that leads out."""
    parts = value.split("/") if isinstance(value, str) and value.isprintable() else [""]
    if "" in parts or ".." in parts or "." in parts or parts[0].startswith(("-", ":")):
        raise BadInput(f"{name}: {_shown(value)} is not a path inside a release, such as dist/main.js")
    return str(value)


def url(value: Any, name: str) -> str:
    """An https URL, or http on the loopback interface; no credentials inside, they would end in logs."""
    parts = urlsplit(value) if isinstance(value, str) and value.isprintable() and " " not in value else None
    if not parts or not parts.hostname or parts.scheme not in ("http", "https"):
        raise BadInput(f"{name}: {_shown(value)} is not a URL such as https://api.example.com")
    if parts.username or parts.password:
        raise BadInput(f"{name}: a URL must not carry a user or password; use a token file")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise BadInput(f"{name}: {_shown(value)} must use https; plain http is for the loopback interface alone")
    return str(value)


def positive(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{name}: {_shown(value)} is not a whole number from 1 up")
    return value
