#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: health_gate
short_description: Pass only when a service proves its health several times in a row
version_added: 0.1.0
description:
  - Makes all checks at the same time, again and again, until every required one has passed O(passes) times in a row.
  - A check is of one kind. Most are HTTP requests made one after the other. Each is a real request whose answer is
    read; a status, a part of the body and values of a JSON answer can be expected. The others ask a database, Redis,
    Prometheus, a server's certificate, a command or, in a real browser, the pages themselves.
  - A check passes, fails, or is unknown, as where Prometheus has no sample or no browser is installed. A required check
    that is unknown keeps the gate closed.
  - With O(release) the service must also say that it is this release, in the answer of the process that serves it.
  - No check at all is a failure.
options:
  checks:
    description: What to check.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The line of the checklist.
        type: str
        required: true
      required:
        description: Whether the gate stays closed when this check fails.
        type: bool
        default: true
      timeout:
        description: Seconds for each of its requests.
        type: float
        default: 5.0
      requests:
        description: The requests, made in this order.
        type: list
        elements: dict
        default: []
        suboptions: &request
          method:
            description: The HTTP method.
            type: str
            choices: [GET, POST, PUT, PATCH, DELETE]
            default: GET
          url:
            description:
              - Where to. At its beginning V(<name>) stands for one of O(addresses), after that for a value saved
                earlier in this check or a secret, V(<unique>) for a word that is new in each round.
            type: str
            required: true
          headers:
            description: Headers to send beside those of the address; V(<name>) as in O(checks[].requests[].url).
            type: dict
            default: {}
          json:
            description: The JSON body to send; V(<name>) as in O(checks[].requests[].url).
            type: dict
          status:
            description: Status codes that are right.
            type: list
            elements: int
            default: [200]
          contains:
            description: Text that the answer must contain.
            type: str
          equals:
            description: Keys of the JSON answer and the values they must have.
            type: dict
            default: {}
          save:
            description: Names under which values of the JSON answer are kept, with their keys.
            type: dict
            default: {}
      cleanup:
        description: Requests made at the end if anything was saved, so that a probe leaves nothing behind.
        type: list
        elements: dict
        default: []
        suboptions: *request
      sql:
        description: A query to PostgreSQL, in a transaction that cannot write.
        type: dict
        suboptions:
          url_file:
            description: The private file with Prisma's database URL.
            type: path
            required: true
          query:
            description: The query.
            type: str
            required: true
          equals:
            description: What its first value must be, as text.
            type: str
            required: true
      redis:
        description: Redis must answer.
        type: dict
        suboptions:
          url_file:
            description: The private file with its URL, such as C(redis://127.0.0.1:6379).
            type: path
            required: true
          keys:
            description: A pattern of keys that are counted by SCAN.
            type: str
          at_least:
            description: How many keys there must be.
            type: int
            default: 0
      session:
        description: A login must leave its session in Redis, as express-session does.
        type: dict
        suboptions:
          url:
            description: Where to log in, by POST; V(<name>) at its beginning stands for one of O(addresses).
            type: str
            required: true
          headers:
            description: Headers to send beside those of the address; V(<name>) stands for a secret.
            type: dict
            default: {}
          json:
            description: The JSON body to send; V(<name>) stands for a secret.
            type: dict
            required: true
          cookie:
            description: The name of the session's cookie, such as C(connect.sid).
            type: str
            required: true
          url_file:
            description: The private file with the URL of Redis.
            type: path
            required: true
          prefix:
            description: What the keys of sessions begin with.
            type: str
            default: "sess:"
          seconds:
            description: How long the session must have to live, at least.
            type: int
            default: 60
      prometheus:
        description: A query that gives one number. None is unknown.
        type: dict
        suboptions:
          url:
            description: Prometheus' address. Without one the check is unknown.
            type: str
          query:
            description:
              - The query, in PromQL. How fresh samples are can be asked, as by C(time(\) - min(timestamp(up\)\)).
            type: str
            required: true
          at_least:
            description: The smallest number that is right.
            type: float
          at_most:
            description: The largest number that is right.
            type: float
      certificate:
        description: What a server shows for a host name must be valid.
        type: dict
        suboptions:
          host:
            description: The host name, asked for by SNI.
            type: str
            required: true
          port:
            description: The port.
            type: int
            default: 443
          address:
            description: Where to connect to, if not to the host name's own address.
            type: str
          ca_file:
            description: Certificates to trust instead of the system's.
            type: path
          days:
            description: For how many more days it must be valid.
            type: int
            default: 7
      command:
        description: A command, run without a shell, with the secrets in its environment.
        type: dict
        suboptions:
          argv:
            description: Its words.
            type: list
            elements: str
            required: true
          chdir:
            description: The directory to run it in.
            type: path
          environment:
            description: Its variables, beside PATH, HOME, USER, LANG and the secrets.
            type: dict
            default: {}
          code:
            description: The exit code that is right.
            type: int
            default: 0
      browser:
        description:
          - The path that a user takes, in headless Chromium. Errors in the console, exceptions of the page, failed
            requests and answers from 500 up fail it. Without a browser it is unknown.
        type: dict
        suboptions:
          steps:
            description: What the user does and sees, each step one of the following.
            type: list
            elements: dict
            required: true
            suboptions:
              open:
                description: A URL to open.
                type: str
              fill:
                description: A CSS selector of a field to fill with O(checks[].browser.steps[].value).
                type: str
              value:
                description: What to fill in; V(<name>) as in O(checks[].requests[].url).
                type: str
              click:
                description: A CSS selector of what to click.
                type: str
              see:
                description: Text that the page must show.
                type: str
          resolve:
            description: Host names and the addresses to use for them.
            type: dict
            default: {}
          screenshots:
            description: The directory in which a picture of the last page is kept.
            type: path
  addresses:
    description:
      - Where URLs begin that begin with V(<name>), by that name, so that the same lines can be asked of a host and of
        the whole from outside. Each is C(url) and, where wanted, C(headers), which are sent with every request there.
    type: dict
    default: {}
  release:
    description: The release id that the service must say it is.
    type: str
  release_url:
    description:
      - Where the service says which release it is, as C(release) in a JSON object; V(<name>) at its beginning stands
        for one of O(addresses). Required with O(release).
    type: str
  secret_files:
    description: Names usable as V(<name>) in requests, and the private files (mode 0600) that hold their values.
    type: dict
    default: {}
  passes:
    description: How many times in a row everything must pass.
    type: int
    default: 3
  interval:
    description: Seconds between two rounds.
    type: float
    default: 0.3
  timeout:
    description: Seconds after which the gate counts as failed.
    type: float
    default: 60.0
  failure_ends:
    description:
      - Whether the first round that does not pass ends it. A look at what is thought to be broken wants that, for what
        fails now and then would pass so many times in a row sooner or later.
    type: bool
    default: false
  fail:
    description: Whether a gate that does not open fails the task; otherwise it is only reported.
    type: bool
    default: true
attributes:
  check_mode:
    description: It changes nothing but what its checks create and remove again; in check mode it does not run.
    support: none
  diff_mode:
    description: It has no state to show.
    support: none
  platform:
    description: Where it runs.
    support: full
    platforms: posix
requirements:
  - psycopg >= 3, for checks of the kind C(sql)
  - redis, for checks of the kinds C(redis) and C(session)
  - playwright and a Chromium, for checks of the kind C(browser)
author:
  - MarketSage (@marketsage)
"""

EXAMPLES = r"""
- name: Health check
  marketsage.rollback.health_gate:
    release: 3f2a9c81d0e4
    release_url: <api>/api/v2/health
    addresses:
      api: {url: "http://127.0.0.1:3000"}
    checks:
      - name: Database connections working
        requests:
          - url: <api>/api/v2/health/db
      - name: Core CRUD operations functional
        requests:
          - url: <api>/api/v2/contacts
            method: POST
            json: {email: probe@example.com}
            status: [201]
            save: {id: id}
        cleanup:
          - url: <api>/api/v2/contacts/<id>
            method: DELETE
"""

RETURN = r"""
passed:
  description: Whether everything required passed O(passes) times in a row.
  type: bool
  returned: always
release:
  description: The release that the service proved to be; empty where O(release) was not given or not proved.
  type: str
  returned: always
passes:
  description: How often in a row everything had passed at the end.
  type: int
  returned: always
results:
  description: The last result of each check.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The check.
      type: str
    required:
      description: Whether the gate depends on it.
      type: bool
    status:
      description: V(passed), V(failed) or V(unknown).
      type: str
    evidence:
      description: What was asked and answered.
      type: str
    seconds:
      description: How long it took.
      type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import checks, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import Unhealthy, finish
from ansible_collections.marketsage.rollback.plugins.module_utils.files import read_secret


def release_check(release: str, url: str, addresses: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The check that the answering process is this release."""
    asked = {
        "method": "GET",
        "url": url,
        "headers": {},
        "json": None,
        "status": [200],
        "contains": None,
        "equals": {"release": validate.release_id(release)},
        "save": {},
    }
    request = checks.at(asked, addresses)
    validate.url(request["url"], "release_url")
    return {"name": f"is release {release}", "required": True, "timeout": 5.0, "requests": [request], "cleanup": []}


class Closed(Unhealthy):
    """The gate did not open; tells the result of every check too."""

    def __init__(self, message: str, passes: int, results: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self._found = {"passed": False, "release": "", "passes": passes, "results": results}

    def result(self) -> dict[str, Any]:
        return {**super().result(), **self._found}


def open_gate(module: AnsibleModule) -> dict[str, Any]:
    """Run the gate; Closed with every check that did not pass when it does not open."""
    params = module.params
    secrets = {name: read_secret(path, f"secret_files.{name}") for name, path in params["secret_files"].items()}
    addresses = params["addresses"]
    for check in params["checks"]:
        checks.refuse_unknown_names(check, secrets)
    wanted = [checks.located(check, addresses) for check in params["checks"]]
    if params["release"]:
        wanted.insert(0, release_check(params["release"], params["release_url"], addresses))
    passes = validate.positive(params["passes"], "passes")
    deadline = Deadline(params["timeout"])
    ends = params["failure_ends"]
    in_a_row, results = checks.gate(wanted, secrets, passes, params["interval"], deadline, failure_ends=ends)
    opened = in_a_row == passes
    if not opened:
        why = why_closed(results, in_a_row, passes)
        if params["fail"]:
            raise Closed(why, in_a_row, results)
        module.warn(why)
    proved = params["release"] if opened else ""
    return {"changed": False, "passed": opened, "release": proved or "", "passes": in_a_row, "results": results}


def why_closed(results: list[dict[str, Any]], in_a_row: int, passes: int) -> str:
    """One line on what kept the gate closed."""
    failed = [f"{result['name']}: {result['evidence']}" for result in results if result["status"] != "passed"]
    return "; ".join(failed) or f"passed only {in_a_row} of {passes} times in a row before the time was up"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "checks": {"type": "list", "elements": "dict", "required": True, "options": checks.CHECK_OPTIONS},
            "addresses": {"type": "dict", "default": {}},
            "release": {"type": "str"},
            "release_url": {"type": "str"},
            "secret_files": {"type": "dict", "default": {}, "no_log": False},
            "passes": {"type": "int", "default": 3, "no_log": False},
            "interval": {"type": "float", "default": 0.3},
            "timeout": {"type": "float", "default": 60.0},
            "failure_ends": {"type": "bool", "default": False},
            "fail": {"type": "bool", "default": True},
        },
        required_by={"release": ["release_url"]},
    )
    finish(module, open_gate)


if __name__ == "__main__":
    main()
