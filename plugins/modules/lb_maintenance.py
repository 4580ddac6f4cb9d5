#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: lb_maintenance
short_description: Put a maintenance page in front of everything, and take it away
description:
  - Switches the maintenance page of a load balancer, or takes one server of a backend out of rotation.
  - Every change is read back from the balancer and looked at from outside before it is called done.
  - The page carries the name of who put it up. A page that is already up is left as it is, and a page of another
    run or person is not taken away unless O(force) is set.
version_added: 0.1.0
author: MarketSage (@marketsage)
options:
  provider:
    description: The kind of balancer.
    type: str
    required: true
    choices: [haproxy, http, caddy, nginx]
  state:
    description:
      - V(status) reads and changes nothing; it needs no O(run).
      - V(enabled) puts the page up, V(disabled) takes it away.
      - V(drained) sends no new requests to O(server) and waits until its last one has ended; V(ready) puts it back and
        waits until it runs. Both are for O(provider=haproxy).
      - On and off are not accepted, because YAML reads them as booleans.
    type: str
    required: true
    choices: [status, enabled, disabled, drained, ready]
  text:
    description:
      - What users read on the page. Plain text without markup, at most 200 characters.
      - With O(provider=http) it is the field C(message) of the JSON sent with O(enable_request).
    type: str
    default: We are back in a few minutes.
  owner:
    description: Who puts the page up. Required with O(state=enabled).
    type: str
  reason:
    description: Why, in one line. Required with O(state=enabled).
    type: str
  force:
    description:
      - Take a page away, or make it this run's, although somebody else, or nobody known, put it up.
      - With O(state=drained), drain a server although it is the last one that serves.
    type: bool
    default: false
  record_file:
    description:
      - JSON file that remembers who put the page up.
      - By default O(map_file) or O(flag_file) with C(.json) appended.
      - Required with O(provider=http) and O(provider=caddy).
    type: path
  look:
    description:
      - Requests as users make them. While the page is on all must be answered with it, while it is off none.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: Address to request.
        type: str
        required: true
      headers:
        description: Headers to send, for example C(Host).
        type: dict
        default: {}
  page:
    description: What tells the page from any other answer.
    type: dict
    suboptions:
      status:
        description: HTTP status of the page.
        type: int
        default: 503
      header:
        description: Header that only the page has.
        type: str
        default: x-maintenance
      value:
        description: Value of that header.
        type: str
        default: 'on'
  cut:
    description:
      - With O(state=drained), whether sessions that have not ended after O(timeout) are given up. They are cut when the
        server is stopped; the module warns of them instead of failing.
    type: bool
    default: false
  timeout:
    description: Seconds after which a switch that cannot be seen has failed.
    type: float
    default: 10
  socket:
    description:
      - Runtime socket of HAProxy with level admin, a path or V(127.0.0.1:PORT).
    type: str
  map_file:
    description:
      - HAProxy's map with the keys C(all) (C(on) or C(off)) and C(message), named exactly as haproxy.cfg names it.
      - It is written before the runtime is changed, so that the page survives a reload and a restart.
    type: path
  flag_file:
    description:
      - With O(provider=nginx), the file during whose presence nginx shows the page; see the notes.
      - It is created with what users read and removed again. Its directory must be writable, and nginx able to read it.
    type: path
  backend:
    description: HAProxy's backend of O(server). With O(state=status) its servers are read too.
    type: str
  state_file:
    description:
      - HAProxy's C(server-state-file), named exactly as haproxy.cfg names it, which has to say
        C(load-server-state-from-file global) too.
      - It is written before a server is drained or put back, so that a drained server stays so over a reload and a
        restart. Without it HAProxy sends requests again after a reload, and the module warns of that.
    type: path
  server:
    description:
      - With O(provider=haproxy) the server to drain or put back.
      - With O(provider=caddy) the HTTP server of its configuration that gets the page, for example V(srv0).
    type: str
  api_url:
    description: Base address of the balancer's API with O(provider=http).
    type: str
  token_file:
    description: File, readable by its owner alone, with a bearer token for O(api_url).
    type: path
  enable_request:
    description: The request that switches maintenance on.
    type: dict
    suboptions:
      method:
        description: HTTP method.
        type: str
        default: POST
        choices: [POST, PUT, PATCH, DELETE]
      path:
        description: Path below O(api_url).
        type: str
        default: /maintenance-mode
      expect:
        description: Statuses that mean success.
        type: list
        elements: int
        default: [200, 201, 202, 204]
  disable_request:
    description: The request that switches maintenance off.
    type: dict
    suboptions:
      method:
        description: HTTP method.
        type: str
        default: DELETE
        choices: [POST, PUT, PATCH, DELETE]
      path:
        description: Path below O(api_url).
        type: str
        default: /maintenance-mode
      expect:
        description: Statuses that mean success.
        type: list
        elements: int
        default: [200, 204, 404]
  status_request:
    description:
      - How the state is read from O(api_url). Without it the state is what O(look) sees; one of the two is required.
    type: dict
    suboptions:
      path:
        description: Path below O(api_url), requested with GET.
        type: str
        default: /maintenance-mode
      field:
        description: Boolean field of the JSON answer that is true while maintenance is on.
        type: str
        default: maintenance
  admin_url:
    description:
      - Address of Caddy's admin API with O(provider=caddy).
      - Run Caddy with C(--resume), else a restart forgets the page.
    type: str
attributes:
  check_mode:
    description: Says what would change and changes nothing.
    support: full
  diff_mode:
    description: Shows state, text and owner before and after.
    support: full
notes:
  - Putting the page up is the one change that is made even where the journal, the lock or the map file cannot be
    written, for example on a full disk. It warns instead.
  - With O(provider=nginx) the server's configuration looks for O(flag_file) at each request, with
    C(if (-f FLAG_FILE) { return 503; }), and serves it as C(error_page 503) with the header of O(page).
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: Put the maintenance page up
  marketsage.rollback.lb_maintenance:
    provider: haproxy
    state: enabled
    socket: /run/haproxy/admin.sock
    map_file: /etc/haproxy/maintenance.map
    owner: alice
    reason: health answers 500
    look:
      - url: https://api.example.com/api/v2/health
    run: "{{ run }}"

- name: Take one server out of rotation and wait for its last request
  marketsage.rollback.lb_maintenance:
    provider: haproxy
    state: drained
    socket: /run/haproxy/admin.sock
    backend: api
    server: api-1
    state_file: /var/lib/haproxy/servers.state
    run: "{{ run }}"

- name: Restore traffic through an API of one's own
  marketsage.rollback.lb_maintenance:
    provider: http
    state: disabled
    api_url: https://lb.example.com
    token_file: /etc/rollback/lb_token
    record_file: /var/lib/rollback/maintenance.json
    status_request: {}
    run: "{{ run }}"
"""

RETURN = r"""
enabled:
  description: Whether users get the page; null where that differs from place to place.
  returned: when the page was asked for
  type: bool
lasting:
  description: Whether they would after a restart of the balancer; null where the provider cannot tell.
  returned: when the page was asked for
  type: bool
text:
  description: What the page says; null while it is off or where the balancer cannot tell.
  returned: when the page was asked for
  type: str
owner:
  description: Who put the page up; null while it is off or where nobody is on record.
  returned: when the page was asked for
  type: str
reason:
  description: Why it was put up.
  returned: when the page was asked for
  type: str
run:
  description: The run that put it up.
  returned: when the page was asked for
  type: str
since:
  description: When it was put up, ISO 8601, UTC.
  returned: when the page was asked for
  type: str
looks:
  description: What was seen from outside; empty in check mode.
  returned: when the page was asked for
  type: list
  elements: dict
  contains:
    url:
      description: Address requested.
      type: str
    host:
      description: The C(Host) header sent, null where it is the one of the address.
      type: str
    status:
      description: HTTP status, null where nobody answered.
      type: int
    page:
      description: Whether the answer was the page, null where nobody answered.
      type: bool
    error:
      description: Why there was no answer.
      type: str
repaired:
  description: What was found contradictory and was put right.
  returned: when the page was asked for
  type: str
  sample: HAProxy's runtime said on, its map file off
servers:
  description: The servers of O(backend) by name, each like RV(server).
  returned: when O(state=status) and O(backend) is given
  type: dict
server:
  description:
    - The server's C(backend), C(name), C(admin) state, C(operational) state and number of C(sessions).
    - C(lasting) is the C(admin) state that it has after a reload, none without O(state_file).
  returned: when a server was asked for
  type: dict
"""

from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import balancer, haproxy, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.caddy import MaintenanceRoute
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import BadInput, Held, finish
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret
from ansible_collections.marketsage.rollback.plugins.module_utils.maintenance_api import AdminApi, MaintenanceApi
from ansible_collections.marketsage.rollback.plugins.module_utils.nginx import FlagFile
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run


def request_options(method: str, expect: list[int]) -> dict[str, Any]:
    return {
        "type": "dict",
        "apply_defaults": True,
        "options": {
            "method": {"type": "str", "default": method, "choices": ["POST", "PUT", "PATCH", "DELETE"]},
            "path": {"type": "str", "default": "/maintenance-mode"},
            "expect": {"type": "list", "elements": "int", "default": expect},
        },
    }


ARGUMENTS = {
    "provider": {"type": "str", "required": True, "choices": ["haproxy", "http", "caddy", "nginx"]},
    "state": {
        "type": "str",
        "required": True,
        "choices": ["status", "enabled", "disabled", "drained", "ready"],
    },
    "text": {"type": "str", "default": "We are back in a few minutes."},
    "owner": {"type": "str"},
    "reason": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "run": RUN_ARGUMENT,
    "record_file": {"type": "path"},
    "look": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"url": {"type": "str", "required": True}, "headers": {"type": "dict", "default": {}}},
    },
    "page": {
        "type": "dict",
        "apply_defaults": True,
        "options": {
            "status": {"type": "int", "default": 503},
            "header": {"type": "str", "default": "x-maintenance"},
            "value": {"type": "str", "default": "on"},
        },
    },
    "cut": {"type": "bool", "default": False},
    "timeout": {"type": "float", "default": 10},
    "socket": {"type": "str"},
    "map_file": {"type": "path"},
    "flag_file": {"type": "path"},
    "state_file": {"type": "path"},
    "backend": {"type": "str"},
    "server": {"type": "str"},
    "api_url": {"type": "str"},
    "token_file": {"type": "path", "no_log": False},
    "enable_request": request_options("POST", [200, 201, 202, 204]),
    "disable_request": request_options("DELETE", [200, 204, 404]),
    "status_request": {
        "type": "dict",
        "options": {
            "path": {"type": "str", "default": "/maintenance-mode"},
            "field": {"type": "str", "default": "maintenance"},
        },
    },
    "admin_url": {"type": "str"},
}
REQUIRED_IF = [
    ("state", "enabled", ("owner", "reason")),
    ("state", "drained", ("backend", "server")),
    ("state", "ready", ("backend", "server")),
    ("provider", "haproxy", ("socket",)),
    ("provider", "http", ("api_url", "record_file")),
    ("provider", "caddy", ("admin_url", "server", "record_file")),
    ("provider", "nginx", ("flag_file",)),
]
# state: (what HAProxy calls it, how it is told apart)
SERVER_STATES = {"drained": ("drain", haproxy.drained), "ready": ("ready", haproxy.ready)}


def haproxy_page(params: dict[str, Any], _looks: balancer.Looks, deadline: Deadline, warn: balancer.Warn) -> Any:
    runtime = haproxy.Runtime(haproxy.address(params["socket"]), deadline)
    return haproxy.MaintenanceMap(runtime, validate.absolute_path(params["map_file"], "map_file"), warn)


def http_page(params: dict[str, Any], looks: balancer.Looks, deadline: Deadline, _warn: balancer.Warn) -> Any:
    headers = {}
    if params["token_file"]:
        headers["Authorization"] = f"Bearer {read_secret(params['token_file'], 'token_file')}"
    requests = {name: params[f"{name}_request"] for name in ("enable", "disable", "status")}
    return MaintenanceApi(AdminApi(params["api_url"], "api_url", deadline, headers), requests, looks)


def caddy_page(params: dict[str, Any], _looks: balancer.Looks, deadline: Deadline, _warn: balancer.Warn) -> Any:
    admin = AdminApi(params["admin_url"], "admin_url", deadline)
    return MaintenanceRoute(admin, validate.identifier(params["server"], "server"), params["page"], deadline)


def nginx_page(params: dict[str, Any], _looks: balancer.Looks, _deadline: Deadline, _warn: balancer.Warn) -> Any:
    return FlagFile(validate.absolute_path(params["flag_file"], "flag_file"))


PROVIDERS = {"haproxy": haproxy_page, "http": http_page, "caddy": caddy_page, "nginx": nginx_page}


def page_of(params: dict[str, Any], deadline: Deadline, warn: balancer.Warn) -> balancer.Page:
    looks = balancer.Looks(params["look"], params["page"])
    provider = PROVIDERS[params["provider"]](params, looks, deadline, warn)
    beside = params["map_file"] or params["flag_file"]
    record = validate.absolute_path(params["record_file"] or f"{beside}.json", "record_file")
    return balancer.Page(provider, record, looks, deadline, warn)


def work_on_page(module: AnsibleModule, deadline: Deadline) -> dict[str, Any]:
    """Read, decide, switch, read back."""
    params = module.params
    page = page_of(params, deadline, module.warn)
    before = page.read()
    if params["state"] == "status":
        return {"changed": False, **before, "looks": page.look(), "repaired": None, **servers_of(params, deadline)}
    after = balancer.decided(before, params)
    changed = after != before
    if module.check_mode:
        looks = []
    elif not changed:
        looks = page.confirm(after["enabled"])
    else:
        looks = balancer.switch(page, after, params, module.warn)
        after = page.read()
    diff = {"before": before, "after": after}
    return {"changed": changed, **after, "looks": looks, "repaired": balancer.contradiction(before), "diff": diff}


def servers_of(params: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
    """The servers of the backend, where one is named."""
    if not params["backend"]:
        return {}
    _refuse_other_provider(params)
    runtime = haproxy.Runtime(haproxy.address(params["socket"]), deadline)
    return {"servers": haproxy.servers(runtime, validate.identifier(params["backend"], "backend"))}


def _refuse_other_provider(params: dict[str, Any]) -> None:
    if params["provider"] != "haproxy":
        raise BadInput(f"backend: {params['provider']} has none that could be named; it is for provider haproxy")


def work_on_server(module: AnsibleModule, deadline: Deadline) -> dict[str, Any]:
    """Drain one server, or put it back, and wait until it is so."""
    params = module.params
    _refuse_other_provider(params)
    names = validate.identifier(params["backend"], "backend"), validate.identifier(params["server"], "server")
    state_file = params["state_file"] and validate.absolute_path(params["state_file"], "state_file")
    runtime = haproxy.Runtime(haproxy.address(params["socket"]), deadline)
    server = haproxy.Server(runtime, *names, state_file)
    admin, finished = SERVER_STATES[params["state"]]
    before = after = server.read()
    changed = before["admin"] != admin or before["lasting"] not in (None, admin)
    if admin == "drain" and not state_file:
        module.warn(f"{'/'.join(names)}: a reload of HAProxy undoes the drain, because no state_file is named")
    if module.check_mode:
        after = {**before, "admin": admin}
    else:
        if changed:
            # Other servers wait for the lock: it is held while this one is switched, not while its sessions end.
            with Run.of(params["run"]).change(f"server.{params['state']}", before) as change:
                if admin == "drain" and not params["force"]:
                    server.refuse_last()
                change.outcome = server.set(admin)
        after = wait(module, server, finished)
    return {"changed": changed, "server": after, "diff": {"before": before, "after": after}}


def wait(module: AnsibleModule, server: haproxy.Server, finished: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The server's state once it is finished, or with sessions left that are given up."""
    try:
        return server.wait(finished, module.params["state"])
    except Held:
        state = server.read()
        if not module.params["cut"] or state["admin"] != "drain":
            raise
        module.warn(f"{state['name']}: {state['sessions']} sessions have not ended and will be cut")
        return state


def work(module: AnsibleModule) -> dict[str, Any]:
    deadline = Deadline(module.params["timeout"])
    on_server = module.params["state"] in SERVER_STATES
    return (work_on_server if on_server else work_on_page)(module, deadline)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED_IF, supports_check_mode=True)
    finish(module, work)


if __name__ == "__main__":
    main()
