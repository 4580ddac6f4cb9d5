"""The collection's own metadata agrees with its modules."""
from __future__ import annotations

from pathlib import Path

import yaml

COLLECTION = Path(__file__).resolve().parents[2]


def test_the_action_group_has_every_module_that_takes_a_run() -> None:
    documented = {path.stem: path.read_text() for path in (COLLECTION / "plugins/modules").glob("*.py")}
    takes_a_run = sorted(name for name, text in documented.items() if "- marketsage.rollback.run\n" in text)
    assert takes_a_run
    assert yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text())["action_groups"]["rollback"] == takes_a_run


def test_every_procedure_has_a_job_template_that_asks_for_what_can_be_said() -> None:
    procedures = yaml.safe_load((COLLECTION / "playbooks/group_vars/all/services.yml").read_text())
    words = set(yaml.safe_load((COLLECTION / "playbooks/group_vars/all/run.yml").read_text()))
    policy = yaml.safe_load((COLLECTION / "playbooks/group_vars/all/policy.yml").read_text())["rollback_policy"]
    templates = yaml.safe_load((COLLECTION / "extensions/awx/job_templates.yml").read_text())["rollback_job_templates"]
    known = {one["title"]: one for one in procedures["rollback_procedures"].values()}
    assert {one["name"]: one["playbook"] for one in templates} == {
        title: f"playbooks/{one['playbook']}" for title, one in known.items()
    }
    for template in templates:
        questions = {one["variable"]: one for one in template["survey_spec"]["spec"]}
        assert set(questions) <= words
        assert ("severity" in questions) != ("severity" in known[template["name"]])
        assert questions.get("severity", {}).get("choices", list(policy["severities"])) == list(policy["severities"])
