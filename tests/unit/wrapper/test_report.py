"""The report of a run: all that is on record, nothing that is not, and what people wrote stays text."""
from __future__ import annotations

import builtins
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.marketsage.rollback.plugins.module_utils import criteria
from ansible_collections.marketsage.rollback.wrapper import report
from markdown_it import MarkdownIt

RUN = "20261124T031500Z-backend-3f9a"
HOSTILE = "<script>alert(1)</script> [x](http://evil) `rm` | *all* & {{ 7 * 7 }}"
PNG = b"\x89PNG\r\n\x1a\n"
PLAN = {
    "environment": "test", "procedure": "backend", "severity": "P0", "reason": HOSTILE,
    "approval": {"need": "none", "roles": []}, "balancers": ["lb"], "databases": [],
    "services": {
        "backend": {
            "action": "rollback", "hosts": ["api-1"], "stop_traffic": True,
            "from": [{"release": "b" * 12, "commit": "b" * 40, "ref": "v2"}],
            "to": {"release": "a" * 12, "commit": "a" * 40, "ref": "v1"},
            "leaves": [{"commit": "b" * 40, "subject": HOSTILE, "author": HOSTILE}],
        },
    },
}  # fmt: skip
MEASURE = {
    "name": "Error rate", "shows": "errors", "unit": "%", "limit": 5, "above": 5, "baseline": 0.2, "bound": 0.8,
    "value": 0.1, "within_sla": True, "verdict": "better", "problem": "",
}  # fmt: skip
RESULT = {"name": HOSTILE, "status": "passed", "required": True, "evidence": HOSTILE}
BEGAN = 1795490100.0
WATCH = {
    "verdict": "better", "live_since": BEGAN - 300, "measures": [MEASURE], "health": [RESULT], "users": [RESULT],
    "series": {"Error rate": [[BEGAN - 400 + 10 * number, number / 10] for number in range(60)]},
}  # fmt: skip


def entry(step: str, kind: str, time: str, **data: Any) -> dict[str, Any]:
    return {"step": step, "kind": kind, "time": f"2026-11-24T{time}.000Z", "at": "lb", "data": data}


JOURNAL = [
    entry("open", "outcome", "03:15:00", reason=HOSTILE, plan="f" * 64),
    entry("maintenance.enabled", "outcome", "03:15:05"),
    entry("schema.rolled_back", "outcome", "03:15:10", archive="rollback_x", archived=[
        {"table": "public.Contact", "column": "phone", "rows": 25, "counted": True}]),
    entry("maintenance.disabled", "outcome", "03:15:35"),
]  # fmt: skip


def shown(directory: Path, **more: Any) -> dict[str, Any]:
    found = {
        "run": RUN, "procedure": "backend", "severity": "P0", "reason": HOSTILE, "owner": HOSTILE, "taken_over": None,
        "approved_by": None, "state": "done", "exit_code": 0, "opened": "2026-11-24T03:15:00.000Z",
        "closed": "2026-11-24T03:16:00.000Z", "directory": str(directory), "plan": PLAN,
        "outcome": {"closed": "2026-11-24T03:16:00.000Z", "notes": [HOSTILE], "undone": [], "left_to_do": []},
        "steps": {"Verify health": 75.0, "Restore traffic": 1.0}, "journal": JOURNAL, "watch": WATCH,
        "messages": [{"channel": "pager", "event": "begun", "state": "sent", "created": "2026-11-24T03:15:01.000Z"}],
        **more,
    }  # fmt: skip
    return {**found, "criteria": criteria.answered(PLAN, found["journal"], found["watch"])}


class Page(HTMLParser):
    """The elements of a page, what they refer to, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def written(directory: Path, **more: Any) -> tuple[str, Page]:
    markdown, page = report.write(shown(directory, **more), directory / "out")
    return markdown.read_text(), Page(page.read_text())


def test_the_page_is_one_file_in_which_what_people_wrote_is_text(tmp_path: Path) -> None:
    (tmp_path / "screenshots" / "watch").mkdir(parents=True)
    (tmp_path / "screenshots" / "watch" / "critical-user-paths.png").write_bytes(PNG)
    _markdown, page = written(tmp_path)
    assert not {"script", "link", "iframe", "a"} & set(page.elements)
    assert page.text.count(HOSTILE) >= 6
    assert page.elements.count("svg") == 1
    assert [address[:22] for address in page.addresses if not address.startswith("#")] == ["data:image/png;base64,"]
    assert "critical user paths (after the watch)" in page.text


def test_markdown_from_people_is_text_too(tmp_path: Path) -> None:
    markdown, _page = written(tmp_path)
    parsed = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown)
    inside = [child for token in parsed for child in [token, *(token.children or [])]]
    assert not [token for token in inside if token.type in ("link_open", "html_inline", "html_block")]
    assert HOSTILE in "".join(token.content for token in inside if token.type in ("text", "text_special"))


def test_what_is_known_is_filled_in(tmp_path: Path) -> None:
    markdown, page = written(tmp_path)
    for text in (markdown, page.text):
        assert "The rollback took 1:00 of the 5:00 that are allowed; users met the maintenance page for 30 s" in text
        assert "it is as well as before the bad release" in text
        assert "25 rows of public.Contact.phone" in text
        assert f"rollback undo {RUN} -r WHY" in text
        assert f"-e archive_of={RUN}" in text
        assert "bad release live" in text
    assert re.search(r"\| Verify health \| 1:15 \| 1:00 \| over budget \|", markdown)
    assert "- [x] Communicate status to stakeholders" in markdown
    assert "- [ ] Conduct rollback post-mortem" in markdown
    assert "f" * 64 not in page.text


def test_what_is_not_on_record_is_said_to_be_unknown(tmp_path: Path) -> None:
    open_run = {"watch": None, "outcome": None, "state": "open", "exit_code": None, "journal": [], "messages": []}
    markdown, page = written(tmp_path, **open_run)
    assert "svg" not in page.elements
    for text in (markdown, page.text):
        assert "It has not ended yet" in text
        assert "it was not watched" in text
        assert "No plots: it was not watched" in text
        assert "No results of checks are on record." in text
        assert f"rollback resume {RUN}" in text
    assert "- [ ] Communicate status to stakeholders" in markdown


def test_without_the_library_it_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    _markdown, page = written(tmp_path)
    assert "svg" not in page.elements
    assert "No plots: matplotlib is not installed (pip install 'marketsage-rollback[report]')." in page.text


def test_the_pictures_take_the_colour_of_the_page_and_mark_the_events(tmp_path: Path) -> None:
    drawn, _none = report.pictures(WATCH, {"traffic back": BEGAN, "page up": BEGAN - 30})
    (picture,) = drawn
    assert "currentColor" in picture and "#010203" not in picture
    for words in ("traffic back", "page up", "Error rate (SLA 5)"):
        assert words in picture
