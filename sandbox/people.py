"""The people of the miniature: an SSH key for each, and the list of keys that approvals are checked against."""
from __future__ import annotations

import shutil
import subprocess

from ansible_collections.marketsage.rollback.sandbox.layout import Layout

# As inventories/sandbox names them.
PEOPLE = ("dana", "eli", "lea")


def make_keys(layout: Layout) -> None:
    """Make keys under secrets/keys and allowed_signers; without ssh-keygen nothing can be approved."""
    keys = layout.secrets / "keys"
    keys.mkdir(mode=0o700)
    if not shutil.which("ssh-keygen"):
        return
    lines = []
    for person in PEOPLE:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", person, "-f", str(keys / person)]
        subprocess.run(command, check=True, timeout=60)
        lines.append(f'{person} namespaces="marketsage-approve" {(keys / f"{person}.pub").read_text()}')
    layout.allowed_signers.write_text("".join(lines))
