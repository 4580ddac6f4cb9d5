#!/usr/bin/python
# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: compose_rollback
short_description: Put a monitoring stack, a compose project in a git checkout, on another revision
version_added: 0.1.0
author: MarketSage (@marketsage)
description:
  - V(listed) tells which revision is live and which were before, from the reflog of the checkout on this host. What
    C(HEAD~1) names may never have been live.
  - V(live) first validates the revision in a fresh working tree, with compose itself and with O(validate), while the
    stack is as it was. Then it checks the revision out, makes anew only the services whose definition changed, and has
    those read their files again of which only files changed. Nothing is ever taken down that did not change.
  - The data of a service whose image changes is copied aside first, for an older image may not read what a newer one
    has written. The service is stopped for the length of the copy.
  - V(proved) waits until Prometheus runs with the revision's configuration and every expected target is up, with a
    sample that is newer than the restart or reload. No sample yet is no proof.
requirements:
  - PyYAML, which podman-compose and docker-compose need too
options:
  state:
    description: What to do.
    type: str
    choices: [listed, live, proved]
    required: true
  directory:
    description: The git checkout that holds the compose project.
    type: path
    required: true
  project:
    description: The name of the compose project.
    type: str
    required: true
  compose_command:
    description: The words that start compose, such as V([docker, compose]), V([docker-compose]) or V([podman-compose]).
    type: list
    elements: str
    default: [docker, compose]
  environment:
    description: Variables for compose and O(validate), beside PATH, HOME, USER and LANG of the module itself.
    type: dict
    default: {}
  local_files:
    description: Files and directories of the checkout that are not in git and belong to this host, such as V(.env).
    type: list
    elements: path
    default: []
  validate:
    description:
      - Commands, each a list of words, that are run in the fresh working tree and must exit 0, such as
        V([promtool, check, config, prometheus/prometheus.yml]).
    type: list
    elements: list
    default: []
  require_digests:
    description: Whether a revision is refused that does not name every image by its digest.
    type: bool
    default: true
  services:
    description:
      - What is known of each service, by its name. C(files) are the paths in git that it reads, C(reload_url) is where
        a POST has it read them again (without one it is made anew), C(ready_url) answers 200 when it serves, and
        C(data) is its data directory.
    type: dict
    default: {}
  backup_dir:
    description: Where data is copied to, below the run's id.
    type: path
  prometheus_url:
    description: Prometheus' address.
    type: str
  prometheus_service:
    description: Which of the O(services) is Prometheus.
    type: str
    default: prometheus
  targets:
    description: By the name of a job, how many targets must be up. A target of another job must be up too.
    type: dict
    default: {}
  live:
    description: The commit that was live when the plan was made.
    type: str
  commit:
    description: The full commit to put live, or to prove.
    type: str
  timeout:
    description: Seconds for the whole work.
    type: int
    default: 120
  fail:
    description: Whether a proof that fails fails the task.
    type: bool
    default: true
attributes:
  check_mode:
    description: Validates, and says which services it would touch.
    support: full
  diff_mode:
    description: Shows the commit before and after, and what happens to each service.
    support: full
  platform:
    description: Runs on the host with the checkout.
    platforms: posix
    support: full
extends_documentation_fragment:
  - marketsage.rollback.run
"""

EXAMPLES = r"""
- name: See what was live before
  marketsage.rollback.compose_rollback:
    state: listed
    directory: /srv/marketsage-monitoring
    project: marketsage-monitoring

- name: Put the last good revision live
  marketsage.rollback.compose_rollback:
    state: live
    directory: /srv/marketsage-monitoring
    project: marketsage-monitoring
    local_files: [.env]
    validate: [[promtool, check, config, prometheus/prometheus.yml]]
    services:
      prometheus:
        files: [prometheus]
        reload_url: http://127.0.0.1:9090/-/reload
        ready_url: http://127.0.0.1:9090/-/ready
        data: /srv/marketsage-monitoring/data/prometheus
      grafana: {files: [grafana], ready_url: "http://127.0.0.1:3000/api/health"}
    backup_dir: /var/backups/monitoring
    live: 5d1e0c7a2b3f4e5d6c7b8a9f0e1d2c3b4a5f6e7d
    commit: 0b7c9d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c
    run: "{{ rollback_run }}"
"""

RETURN = r"""
live:
  description: Commit, release, ref and C(live_at) of what is checked out now.
  returned: success
  type: dict
candidates:
  description: What was checked out before and is not now, each commit once, the one that was live last first.
  returned: when O(state) is V(listed)
  type: list
  elements: dict
recreated:
  description: Services that were made anew.
  returned: when O(state) is V(live)
  type: list
  elements: str
reloaded:
  description: Services that read their files again, without a gap.
  returned: when O(state) is V(live)
  type: list
  elements: str
removed:
  description: Services that the revision does not have.
  returned: when O(state) is V(live)
  type: list
  elements: str
kept:
  description: By service, where its data was copied to, with the number of C(files) and C(bytes).
  returned: when O(state) is V(live)
  type: dict
passed:
  description: Whether the revision proved itself.
  returned: when O(state) is V(proved)
  type: bool
release:
  description: The id of the revision that is checked out, as a gate reports it.
  returned: when O(state) is V(proved)
  type: str
results:
  description: Each line of the proof, with C(name), C(status) (passed, failed or unknown) and C(evidence).
  returned: when O(state) is V(proved)
  type: list
  elements: dict
exit_code:
  description: The exit code that a run ends with because of this failure.
  returned: failure
  type: int
advice:
  description: What to do next.
  returned: failure
  type: str
"""

import os
import time
from collections import Counter
from functools import partial
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.marketsage.rollback.plugins.module_utils import api, compose, errors, prometheus, validate
from ansible_collections.marketsage.rollback.plugins.module_utils.command import with_variables, words
from ansible_collections.marketsage.rollback.plugins.module_utils.compose import Project
from ansible_collections.marketsage.rollback.plugins.module_utils.deadline import Deadline
from ansible_collections.marketsage.rollback.plugins.module_utils.run import RUN_ARGUMENT, Run

STEP = "compose_rollback"
_POLL_SECONDS = 0.5
_ASK_SECONDS = 5.0


def project_of(params: dict[str, Any]) -> Project:
    directory = validate.absolute_path(params["directory"], "directory")
    if not os.path.isdir(os.path.join(directory, ".git")):
        raise errors.BadInput(f"directory: {directory} is no git checkout")
    return Project(
        directory=directory,
        name=validate.identifier(params["project"], "project"),
        command=words(params["compose_command"], "compose_command"),
        environment=with_variables(params["environment"]),
        local_files=[validate.relative_path(name, "local_files") for name in params["local_files"]],
        deadline=Deadline(validate.positive(params["timeout"], "timeout")),
    )


def listed(module: AnsibleModule) -> dict[str, Any]:
    now, *before = compose.revisions(project_of(module.params))
    return {"changed": False, "live": now, "candidates": before}


def live(module: AnsibleModule) -> dict[str, Any]:
    """Validate, then change; a run that was killed in between does again what it meant to."""
    params, project = module.params, project_of(module.params)
    origin, commit = (validate.commit(params[name], name) for name in ("live", "commit"))
    found = compose.head(project)
    begun = bool(params["run"]) and Run.of(params["run"]).has_begun(STEP)
    changes = found != commit or (begun and origin != commit)
    result = {"changed": changes, "recreated": [], "reloaded": [], "removed": [], "kept": {}}
    if changes:
        refuse_what_differs(project, found, origin, commit)
        check(project, params, commit)
        work = compose.touched(project, origin, commit, params["services"])
        result.update(recreated=work.recreated, reloaded=work.reloaded, removed=work.removed)
        if not module.check_mode:
            result["kept"] = change(project, params, work)
    result["live"] = compose.revisions(project)[0]
    touched = {name: result[name] for name in ("recreated", "reloaded", "removed")}
    result["diff"] = {"before": {"commit": found}, "after": {"commit": commit, **(touched if changes else {})}}
    return result


def refuse_what_differs(project: Project, found: str, origin: str, commit: str) -> None:
    if found not in (origin, commit):
        raise errors.Held(f"{project.directory} is on {found}, but the plan was made on {origin}; who changed it?")
    by_hand = compose.changed_by_hand(project)
    if by_hand:
        raise errors.Held(
            f"{project.directory}: {', '.join(by_hand[:5])} differs from what is committed",
            "Commit or put back what was changed by hand; a rollback would write over it.",
        )


def check(project: Project, params: dict[str, Any], commit: str) -> None:
    """Held, with everything as it was, where the revision could not run."""
    with project.tree(commit) as tree:
        services = project.services(tree)
        loose = compose.unpinned(services) if params["require_digests"] else []
        if loose:
            raise errors.Held(f"{commit[:12]}: the image of {', '.join(loose)} is not pinned by its digest")
        for command in params["validate"]:
            project.run("validate", words(command, "validate"), tree)


def change(project: Project, params: dict[str, Any], work: compose.Touched) -> dict[str, Any]:
    """Check the revision out and bring the services to it that it touches; where each one's data was kept."""
    run, commit = Run.of(params["run"]), params["commit"]
    intent = {"commit": commit, "recreated": work.recreated, "reloaded": work.reloaded, "removed": work.removed}
    with run.change(STEP, intent) as change:
        kept = {name: one for name in work.other_image if (one := keep(project, params, run, name))}
        for name in work.removed if compose.head(project) != commit else []:
            project.compose(project.directory, "stop", name)
        compose.check_out(project, commit)
        for name in work.recreated:
            project.compose(project.directory, "up", "-d", "--no-deps", *forced(params, name), name)
        for name in work.reloaded:
            api.request("POST", params["services"][name]["reload_url"], timeout=_ASK_SECONDS)
        change.outcome = {"commit": compose.head(project), "kept": kept}
    return kept


def forced(params: dict[str, Any], name: str) -> list[str]:
    """Compose itself sees a changed definition, but not changed files that a service without a reload has read."""
    about = params["services"].get(name, {})
    return ["--force-recreate"] if about.get("files") and not about.get("reload_url") else []


def keep(project: Project, params: dict[str, Any], run: Run, name: str) -> dict[str, Any] | None:
    """Stop a service and copy its data aside, once for a run."""
    data = params["services"].get(name, {}).get("data")
    if not data:
        return None
    if not params["backup_dir"]:
        raise errors.Held(f"backup_dir: the image of {name} changes, and there is no place to keep its data")
    target = os.path.join(validate.absolute_path(params["backup_dir"], "backup_dir"), run.id, name)
    if os.path.isdir(target):
        return {"path": target}
    project.compose(project.directory, "stop", name)
    return {"path": target, **compose.keep_data(validate.absolute_path(data, "services.data"), target)}


def proved(module: AnsibleModule) -> dict[str, Any]:
    """Look until every line of the proof passes, or time is up."""
    params, project = module.params, project_of(module.params)
    commit = validate.commit(params["commit"])
    results: list[dict[str, Any]] = []
    for _attempt in project.deadline.attempts(_POLL_SECONDS):
        results = [proof(name, work) for name, work in proofs(project, params, commit).items()]
        if all(result["status"] == "passed" for result in results):
            break
    passed = all(result["status"] == "passed" for result in results)
    failing = "; ".join(f"{one['name']}: {one['evidence']}" for one in results if one["status"] != "passed")
    if not passed and params["fail"]:
        raise errors.Unhealthy(failing)
    now = compose.revisions(project)[0]
    return {"changed": False, "passed": passed, "release": now["release"], "live": now, "results": results}


def proofs(project: Project, params: dict[str, Any], commit: str) -> dict[str, Callable[[], str]]:
    """Each line of the proof, by its name."""
    urls = {name: about["ready_url"] for name, about in params["services"].items() if about.get("ready_url")}
    return {
        "The planned revision is checked out": lambda: is_checked_out(project, commit),
        **{f"{name} serves": partial(serves, url) for name, url in urls.items()},
        "Every expected target is up, by new samples": lambda: are_scraped(project, params),
    }


def serves(url: str) -> str:
    return f"{url} answered {api.request('GET', url, timeout=_ASK_SECONDS).status}"


def proof(name: str, work: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "required": True, "status": "passed", "evidence": work()}
    except errors.Unknown as error:
        return {"name": name, "required": True, "status": "unknown", "evidence": str(error)}
    except errors.RollbackError as error:
        return {"name": name, "required": True, "status": "failed", "evidence": str(error)}


def is_checked_out(project: Project, commit: str) -> str:
    found, by_hand = compose.head(project), compose.changed_by_hand(project)
    if found != commit:
        raise errors.Unhealthy(f"{found[:12]} is, planned is {commit[:12]}")
    if by_hand:
        raise errors.Unhealthy(f"{commit[:12]}, but changed by hand: {', '.join(by_hand[:5])}")
    return commit[:12]


def are_scraped(project: Project, params: dict[str, Any]) -> str:
    """Every target was scraped well since Prometheus has this configuration."""
    url = validate.url(params["prometheus_url"], "prometheus_url")
    since = prometheus.configured_since(url, _ASK_SECONDS)
    files = params["services"].get(params["prometheus_service"], {}).get("files") or []
    written = int(compose.newest_file(project.directory, files))
    if since is None or since < written:
        raise errors.Unhealthy("Prometheus has not taken the configuration that is checked out")
    found = prometheus.targets(url, _ASK_SECONDS)
    fresh = [one for one in found if one["health"] == "up" and prometheus.seconds_of(one["lastScrape"]) > since]
    up = Counter(one["labels"]["job"] for one in fresh)
    lacking = [f"{job} {up[job]} of {wanted}" for job, wanted in params["targets"].items() if up[job] < int(wanted)]
    down = sorted(f"{one['scrapeUrl']} {one['lastError'] or one['health']}" for one in found if one not in fresh)
    if lacking or down:
        raise errors.Unhealthy(f"up by new samples: {', '.join(lacking) or 'all expected'}; not: {', '.join(down[:3])}")
    if not fresh:
        raise errors.Unhealthy("Prometheus scrapes nothing")
    return f"{len(fresh)} targets are up, scraped since {time.strftime('%H:%M:%S', time.gmtime(since))} UTC"


STATES = {"listed": listed, "live": live, "proved": proved}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "directory": {"type": "path", "required": True},
            "project": {"type": "str", "required": True},
            "compose_command": {"type": "list", "elements": "str", "default": ["docker", "compose"]},
            "environment": {"type": "dict", "default": {}},
            "local_files": {"type": "list", "elements": "path", "default": []},
            "validate": {"type": "list", "elements": "list", "default": []},
            "require_digests": {"type": "bool", "default": True},
            "services": {"type": "dict", "default": {}},
            "backup_dir": {"type": "path"},
            "prometheus_url": {"type": "str"},
            "prometheus_service": {"type": "str", "default": "prometheus"},
            "targets": {"type": "dict", "default": {}},
            "live": {"type": "str"},
            "commit": {"type": "str"},
            "timeout": {"type": "int", "default": 120},
            "fail": {"type": "bool", "default": True},
            "run": RUN_ARGUMENT,
        },
        required_if=[("state", "live", ["live", "commit"]), ("state", "proved", ["commit", "prometheus_url"])],
        supports_check_mode=True,
    )
    errors.finish(module, lambda module: STATES[module.params["state"]](module))


if __name__ == "__main__":
    main()
