# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A path that a user takes through the pages, walked in headless Chromium, and what the browser complains of.

It runs in a process of its own: Playwright's loop tolerates neither threads nor forks beside it.
"""
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError, Unknown
from ansible_collections.marketsage.rollback.plugins.module_utils.library import library

# Where this collection is imported from, which Ansible's own loader does not tell other processes.
_COLLECTIONS = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 5))
_START_SECONDS = 30
# What comes after a page has loaded, such as a script that runs late.
_SETTLE_MILLISECONDS = 500
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Nothing but the pages themselves is to be asked for.
_FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
]
STEP_OPTIONS = {
    "open": {"type": "str"},
    "fill": {"type": "str"},
    "value": {"type": "str"},
    "click": {"type": "str"},
    "see": {"type": "str"},
}
OPTIONS = {
    "steps": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": STEP_OPTIONS,
        "mutually_exclusive": [("open", "fill", "click", "see")],
        "required_one_of": [("open", "fill", "click", "see")],
        "required_together": [("fill", "value")],
    },
    "resolve": {"type": "dict", "default": {}},
    "screenshots": {"type": "path"},
}


def walk(wanted: dict[str, Any], secrets: dict[str, str], timeout: float) -> tuple[list[str], str]:
    """Take the steps; what the browser complained of, and where the screenshot is.

    The browser is the one that CHROME_BIN names (none where it is empty), else the first that is installed; unknown
    where there is none. Secrets are given through a pipe.
    """
    library("playwright", "looking in a browser")
    chosen = os.environ.get("CHROME_BIN")
    executable = next(filter(None, map(shutil.which, _NAMES if chosen is None else [chosen])), None)
    if executable is None:
        raise Unknown("no browser is installed (chromium)")
    order = {**wanted, "secrets": secrets, "timeout": timeout, "executable": executable}
    command = [sys.executable, "-m", __name__]
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in (_COLLECTIONS, *sys.path) if entry)}
    process = subprocess.Popen(
        command, env={**os.environ, **path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _nothing = process.communicate(json.dumps(order).encode(), timeout * 2 + _START_SECONDS)
        answer = json.loads(said)
    except (subprocess.TimeoutExpired, ValueError):
        raise Unknown("the browser gave no answer") from None
    finally:
        # The browser's own processes outlive it when it is ended.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if "unknown" in answer:
        raise Unknown(answer["unknown"])
    return answer["complaints"], answer["screenshot"]


def _walk(order: dict[str, Any]) -> dict[str, Any]:
    """What `walk` orders, in the process that is for it."""
    api = library("playwright.sync_api", "looking in a browser")
    rules = ", ".join(f"MAP {host} {address}" for host, address in order["resolve"].items())
    flags = [*_FLAGS, *([f"--host-resolver-rules={rules}"] if rules else [])]
    with api.sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(
                executable_path=order["executable"], args=flags, chromium_sandbox=os.geteuid() != 0
            )
        except api.Error as error:
            return {"unknown": f"the browser does not start: {_first_line(error)}"}
        page = chromium.new_page()
        page.set_default_timeout(order["timeout"] * 1000)
        api.expect.set_options(timeout=order["timeout"] * 1000)
        complaints = _heard(page)
        try:
            for step in order["steps"]:
                _take(page, step, order["secrets"], api)
                page.wait_for_timeout(_SETTLE_MILLISECONDS)
                if complaints:
                    break
        except (api.Error, AssertionError) as error:
            complaints.append(_first_line(error))
        shot = _picture(page, order)
        chromium.close()
    return {"complaints": complaints, "screenshot": shot}


def _heard(page: Any) -> list[str]:
    """A list that grows by what goes wrong in a page."""
    complaints: list[str] = []

    def said(message: Any) -> None:
        if message.type == "error":
            complaints.append(f"console error: {message.text[:200]}")

    def answered(response: Any) -> None:
        if response.status >= 500:
            complaints.append(f"{response.url} answered {response.status}")

    def failed(request: Any) -> None:
        # A request that its own page gives up, when it is left, is no failure.
        if request.failure != "net::ERR_ABORTED":
            complaints.append(f"failed request: {request.url}")

    page.on("console", said)
    page.on("response", answered)
    page.on("pageerror", lambda error: complaints.append(f"the page throws: {_first_line(error)}"))
    page.on("requestfailed", failed)
    return complaints


def _take(page: Any, step: dict[str, Any], secrets: dict[str, str], api: Any) -> None:
    if step.get("open"):
        page.goto(step["open"])
    elif step.get("fill"):
        page.fill(step["fill"], _filled(step["value"], secrets))
    elif step.get("click"):
        page.click(step["click"])
    else:
        api.expect(page.locator("body")).to_contain_text(step["see"])


def _filled(text: str, secrets: dict[str, str]) -> str:
    for name, secret in secrets.items():
        text = text.replace(f"<{name}>", secret)
    return text


def _picture(page: Any, order: dict[str, Any]) -> str:
    if not order["screenshots"]:
        return ""
    os.makedirs(order["screenshots"], mode=0o700, exist_ok=True)
    path = os.path.join(order["screenshots"], re.sub(r"[^a-z0-9]+", "-", order["name"].lower()) + ".png")
    page.screenshot(path=path)
    os.chmod(path, 0o600)
    return path


def _first_line(error: Any) -> str:
    return str(error).partition("\n")[0][:200]


def main() -> None:
    try:
        answer = _walk(json.load(sys.stdin))
    except RollbackError as error:
        answer = {"unknown": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
