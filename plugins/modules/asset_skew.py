#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: asset_skew
short_description: Tell what tabs that were opened before a frontend rollback miss
version_added: 0.1.0
author: MarketSage (@marketsage)
description:
  - A tab that was opened before goes on asking for the assets and server actions of the release that it came from. The
    release that is live then has others, and the tab breaks until it is loaded again.
  - V(remembered) reads the pages as they are before the rollback and journals the assets that they name.
  - V(asked) asks for these assets again when another release is live, and has Prometheus say how often users met that.
  - Nothing is changed. What cannot be told is said, and never in the way of a rollback.
options:
  state:
    description: What to do.
    type: str
    choices: [remembered, asked]
    required: true
  pages:
    description: The pages, each with C(url) and C(headers).
    type: list
    elements: dict
    required: true
    suboptions:
      url:
        description: Its address.
        type: str
        required: true
      headers:
        description: Headers to send.
        type: dict
        default: {}
  prefix:
    description: What the paths of assets begin with.
    type: str
    default: /_next/static/
  prometheus_url:
    description: Prometheus' address; without it nothing is counted.
    type: str
    default: ""
  counters:
    description: By what is counted, a query for a counter of it, as one number.
    type: dict
    default: {}
  timeout:
    description: Seconds for the whole work.
    type: int
    default: 10
  run:
    description: The open run, in whose journal the assets are kept.
    type: dict
    required: true
    suboptions:
      id:
        description: Id of the run.
        type: str
        required: true
      fence:
        description: Fencing number of the run.
        type: int
        required: true
      state_dir:
        description: Directory on this host for the lock, the highest fencing number seen and the journal.
        type: path
        required: true
attributes:
  check_mode:
    description: Reads alone and keeps nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  platform:
    description: Runs wherever the pages can be reached.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Remember what open tabs ask for
  marketsage.rollback.asset_skew:
    state: remembered
    pages: [{url: "https://app.marketsage.com/"}]
    run: "{{ rollback_run }}"

- name: Tell what they miss
  marketsage.rollback.asset_skew:
    state: asked
    pages: [{url: "https://app.marketsage.com/"}]
    prometheus_url: https://prometheus.marketsage.com
    counters:
      assets not found: sum(haproxy_backend_http_responses_total{proxy="assets",code="4xx"})
    run: "{{ rollback_run }}"
"""

RETURN = r"""
assets:
  description: The assets that the pages named before the rollback.
  returned: success
  type: list
  elements: str
gone:
  description: Those of them that are not served any more.
  returned: when O(state) is V(asked)
  type: list
  elements: str
unknown:
  description: Those of them of which that could not be told.
  returned: when O(state) is V(asked)
  type: list
  elements: str
counted:
  description: By what is counted, how often it happened since the assets were remembered; null where that is not known.
  returned: when O(state) is V(asked)
  type: dict
note:
  description: All of it in one line.
  returned: when O(state) is V(asked)
  type: str
exit_code:
  description: The exit code that a run ends with because of this failure.
  returned: failure
  type: int
advice:
  description: What to do next.
  returned: failure
  type: str
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urljoin

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import api, errors, probes, prometheus, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

STEP = "assets_remembered"
_MOST_THREADS = 8
_GONE = (404, 410)


def assets_of(params: dict[str, Any], page: dict[str, Any], timeout: float) -> list[str]:
    """The paths of the assets that a page names."""
    text = api.request("GET", validate.url(page["url"], "pages.url"), headers=page["headers"], timeout=timeout).text
    return sorted(set(re.findall(rf"{re.escape(params['prefix'])}[^\"'\\\s<>)?]+", text)))


def remembered(module: AnsibleModule) -> dict[str, Any]:
    """Keep what the pages name; a run that goes on keeps what it remembered first, before it changed anything."""
    params, run = module.params, Run.of(module.params["run"])
    known = run.outcome_of(STEP)
    if known is not None:
        return {"changed": False, "assets": [path for one in known["pages"] for path in one]}
    deadline = Deadline(validate.positive(params["timeout"], "timeout"))
    pages = [assets_of(params, page, max(deadline.left(), 1)) for page in params["pages"]]
    if not module.check_mode:
        with run.change(STEP, {"pages": [page["url"] for page in params["pages"]]}) as change:
            change.outcome = {"pages": pages, "at": time.time()}
    return {"changed": False, "assets": [path for one in pages for path in one]}


def asked(module: AnsibleModule) -> dict[str, Any]:
    params, known = module.params, Run.of(module.params["run"]).outcome_of(STEP)
    if known is None:
        raise errors.Unknown("what open tabs ask for was not remembered before the rollback")
    deadline = Deadline(validate.positive(params["timeout"], "timeout"))
    wanted = [(page, path) for page, paths in zip(params["pages"], known["pages"]) for path in paths]
    with ThreadPoolExecutor(_MOST_THREADS) as pool:
        statuses = list(pool.map(lambda one: status_of(one[0], one[1], deadline), wanted))
    found = [(path, status) for (_page, path), status in zip(wanted, statuses)]
    result = {
        "assets": [path for path, _status in found],
        "gone": sorted({path for path, status in found if status in _GONE}),
        "unknown": sorted({path for path, status in found if status is None}),
        "counted": {what: since(params, query, known["at"]) for what, query in params["counters"].items()},
    }
    return {"changed": False, **result, "note": note(result)}


def status_of(page: dict[str, Any], path: str, deadline: Deadline) -> int | None:
    """What an asset answers with; None where nothing is answered."""
    url, left = urljoin(page["url"], path), max(deadline.left(), 0.1)
    try:
        return api.request("GET", url, headers=page["headers"], timeout=left, expect=probes.ANY_STATUS).status
    except errors.RollbackError:
        return None


def since(params: dict[str, Any], query: str, at: float) -> int | None:
    """How much a counter has grown; None where Prometheus cannot tell."""
    if not params["prometheus_url"]:
        return None
    url = validate.url(params["prometheus_url"], "prometheus_url")
    try:
        before, now = (prometheus.single(prometheus.instant(url, query, at=moment)) for moment in (at, None))
    except errors.RollbackError:
        return None
    # Nothing counted yet is no series at all; a counter that begins anew is smaller.
    grown = None if now is None else now - (before or 0)
    return None if grown is None else int(grown if grown >= 0 else now or 0)


def note(result: dict[str, Any]) -> str:
    distinct = len(set(result["assets"]))
    unknown = f", {len(result['unknown'])} could not be asked" if result["unknown"] else ""
    counted = "; ".join(f"{what}: {'unknown' if many is None else many}" for what, many in result["counted"].items())
    line = f"tabs opened before miss {len(result['gone'])} of {distinct} assets until they are loaded again{unknown}"
    return f"{line}; since then {counted}" if counted else line


STATES = {"remembered": remembered, "asked": asked}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "pages": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "url": {"type": "str", "required": True},
                    "headers": {"type": "dict", "default": {}},
                },
            },
            "prefix": {"type": "str", "default": "/_next/static/"},
            "prometheus_url": {"type": "str", "default": ""},
            "counters": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 10},
            "run": {**RUN_ARGUMENT, "required": True},
        },
        supports_check_mode=True,
    )
    errors.finish(module, lambda module: STATES[module.params["state"]](module))


if __name__ == "__main__":
    main()
