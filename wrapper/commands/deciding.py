"""Commands by which people decide: approve a plan, mark a release, hold deploys back."""
from __future__ import annotations

import getpass
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.wrapper import completion, policy
from ansible_collections.marketsage.rollback.wrapper.commands import answers, options
from ansible_collections.marketsage.rollback.wrapper.commands.options import INVENTORY, JSON, REASON

# ruff: noqa: PLC0415


@click.command()
@click.argument("plan_hash", metavar="PLAN")
@click.option("--key", type=click.Path(exists=True, path_type=Path), required=True, envvar="ROLLBACK_APPROVAL_KEY",
              help="Your SSH key, or the public half of one in your agent [$ROLLBACK_APPROVAL_KEY].")  # fmt: skip
@click.option("--as", "approver", default=getpass.getuser, show_default="you", help="Your name in the inventory.")
@click.option("--output", type=click.Path(path_type=Path), help="Where to write it, instead of with the plans.")
@INVENTORY
@JSON
def approve(plan_hash: str, key: Path, inventory: Path, as_json: bool, **said: Any) -> None:
    """Approve PLAN, the hash (or the beginning of it) of what somebody else wants to carry out, by your SSH key."""
    from ansible_collections.marketsage.rollback.plugins.module_utils import approval

    if not re.fullmatch(r"[0-9a-f]{8,64}", plan_hash):
        raise click.BadParameter("plan: give at least the first 8 digits of the plan's hash")
    found = answers.answer("proposals.yml", inventory, check=True)
    proposal = next((one for one in found["proposals"] if one["hash"].startswith(plan_hash)), None)
    if proposal is None:
        raise click.BadParameter(f"plan: nobody has asked for an approval of {plan_hash}")
    for line in proposal["summary"]:
        click.echo(line, err=True)
    if sys.stdin.isatty() and not click.confirm("Approve exactly this?", err=True):
        sys.exit(130)
    approver = options.checked(validate.identifier, said["approver"], "as")
    document = approval.document(proposal["hash"], approver, policy.approval_valid_for())
    path = said["output"] or Path(found["approvals"]) / f"{proposal['hash']}.json"
    _sign(path, document, key)
    answers.say(as_json, f"approved: {path}", event="approved", file=str(path))


def _sign(path: Path, document: str, key: Path) -> None:
    """Write the document and its signature beside it."""
    from ansible_collections.marketsage.rollback.plugins.module_utils.approval import NAMESPACE

    signature = path.with_name(f"{path.name}.sig")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(document)
    signature.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(path)]
    if subprocess.run(command, check=False).returncode != 0:
        path.unlink()
        raise click.ClickException(f"ssh-keygen could not sign with {key}; nothing was approved")


@click.command()
@click.argument("release", shell_complete=completion.releases)
@click.argument("mark", metavar="good|bad")
@REASON
@click.option("--service", default="", help="Which service's, where several have a release of that name.")
@INVENTORY
@JSON
def mark(release: str, mark: str, inventory: Path, as_json: bool, **said: str) -> None:
    """Mark RELEASE good or bad; a bad one is never chosen by itself."""
    variables = {
        "release": options.checked(validate.ref, release, "release"),
        "mark": mark,
        "reason": options.checked(validate.reason, said["reason"]),
        "service": said["service"],
    }
    found = answers.answer("mark.yml", inventory, check=False, **variables)
    told = {key: found[key] for key in ("service", "commit", "mark")}
    answers.say(as_json, f"{told['service']} {told['commit'][:12]} is {mark}", event="marked", **told)


@click.command()
@click.option("-r", "--reason", help="Why, in one line.")
@click.option("--for", "duration", default="1h", show_default=True, metavar="90m|2h|1d", help="For how long.")
@click.option("--check", is_flag=True, help="Only ask: exit with 3 while deploys are frozen. For deploy jobs.")
@INVENTORY
@JSON
def freeze(reason: str | None, duration: str, check: bool, inventory: Path, as_json: bool) -> None:
    """Hold deploys back, Railway's automatic ones included."""
    if check:
        answers.answer("may_deploy.yml", inventory, check=False)
        answers.say(as_json, "nothing holds deploys back", event="may_deploy")
        return
    seconds = options.seconds(duration, "for")
    why = options.checked(validate.reason, reason)
    answers.answer("freeze.yml", inventory, check=False, reason=why, seconds=seconds)
    answers.say(as_json, f"deploys are frozen for {duration}", event="frozen", seconds=seconds)


@click.command()
@INVENTORY
@JSON
def unfreeze(inventory: Path, as_json: bool) -> None:
    """Let deploys go on, Railway's automatic ones included."""
    answers.answer("unfreeze.yml", inventory, check=False)
    answers.say(as_json, "deploys may go on", event="unfrozen")
