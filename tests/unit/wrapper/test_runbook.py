"""The written runbook says what the playbooks do."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.marketsage.rollback.wrapper import policy, runbook
from ansible_collections.marketsage.rollback.wrapper.cli import main
from click.testing import CliRunner

REPOSITORY = Path(__file__).resolve().parents[3]
# The headings of the runbook that the procedures automate.
HEADINGS = {
    "Rollback Decision Matrix", "Rollback Triggers", "Next.js Application Rollback", "Immediate Rollback (< 2 minutes)",
    "Manual Rollback Process", "Frontend Rollback Verification", "API Proxy Failures", "Admin Subdomain Issues",
    "NestJS API Rollback", "Database-Safe Rollback", "Critical Backend Rollback (< 5 minutes)",
    "Backend Rollback Verification", "Database Rollback Procedures", "Schema Rollback", "Data Corruption Recovery",
    "JWT Token Issues", "Session Management Rollback", "Admin Authentication Issues", "Admin Component Failures",
    "Prometheus/Grafana Rollback", "Database Connection Pool Rollback", "Cross-Service Coordination",
    "Full System Rollback", "Partial Rollback Strategy", "Rollback Communication Template",
    "Stakeholder Notifications", "Pre-Production Rollback Tests", "Rollback Success Criteria",
    "Post-Rollback Procedures", "Admin Portal Rollback", "Rollback Authorization", "On-Call Schedule",
}  # fmt: skip


@pytest.mark.parametrize("name", policy.procedures())
def test_every_play_of_a_procedure_is_a_step_in_its_order(name: str) -> None:
    written = runbook.written(name)
    shown = re.findall(r"^\d+\. \*\*(.+?)\*\*", written, re.MULTILINE)
    plays = [play["name"] for play, _given in runbook.plays(policy.playbook(name))]
    assert shown == list(dict.fromkeys(plays))
    for step, seconds in policy.steps(policy.playbook(name)).items():
        line = next(line for line in written.splitlines() if f"**{step}**" in line)
        assert line.endswith(f"({runbook.clock(seconds)})")


def test_what_roles_and_imported_files_do_is_below_their_step() -> None:
    written = runbook.written("backend")
    for task in yaml.safe_load((REPOSITORY / "roles/balancer/tasks/page.yml").read_text()):
        assert f"        - {task['name'].partition(':')[0]}: " in written
    for task in yaml.safe_load((REPOSITORY / "roles/backend/tasks/roll_back.yml").read_text()):
        assert f"        - {task['name']}" in written
    assert "            - Maintenance page: enabled (`lb_maintenance`)" in written
    assert "- If that fails:" in written
    assert "{{" not in runbook.written()


def test_a_role_named_by_the_group_of_its_host_is_one_for_each_group() -> None:
    full = runbook.written("full_system")
    assert full.index("restart the application on release") < full.index("Restore the planned deployment")


def test_the_checklists_are_in_the_words_of_their_data() -> None:
    lists = policy.data("checklists")["rollback_checklists"]
    assert list(runbook.checklists("full_system").values()) == [
        [line["name"] for line in lists[service]] for service in ("backend", "frontend")
    ]
    for line in lists["backend"]:
        assert f"- [ ] {line['name']}" in runbook.written("backend")


def test_the_headings_that_playbooks_name_are_headings_of_the_runbook() -> None:
    named = [heading for name in policy.procedures() for heading in runbook._procedure(name)["headings"]]
    assert named
    assert set(named) <= HEADINGS


def test_the_document_is_current() -> None:
    assert (REPOSITORY / "docs/procedures.md").read_text() == runbook.written(), "out of date; run: make docs"


def test_an_unknown_procedure_is_bad_input() -> None:
    refused = CliRunner().invoke(main, ["runbook", "mainframe"])
    assert refused.exit_code == 2
    assert "procedure: 'mainframe' is not one of backend, frontend" in refused.output
