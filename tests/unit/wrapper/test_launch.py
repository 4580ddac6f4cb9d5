from __future__ import annotations

import json
import subprocess
import sys

from ansible_collections.marketsage.rollback.wrapper.launch import as_variables_file

# In a process of its own: once the controller's half of Ansible is loaded, modules warn in another way.
READ = """
import json, sys
from ansible.parsing.dataloader import DataLoader
print(json.dumps({key: str(type(value)) + str(value) for key, value in DataLoader().load(sys.stdin.read()).items()}))
"""


def test_what_an_operator_said_reaches_ansible_to_the_letter() -> None:
    said = ["123456789012", "2026-11-24T03:15:00Z", "yes", "{{ 1 + 1 }}", 'a "b" \\ ü 🚨', ""]
    text = as_variables_file({f"word_{number}": word for number, word in enumerate(said)})
    read = subprocess.run([sys.executable, "-c", READ], input=text, capture_output=True, text=True, check=True)
    words = list(json.loads(read.stdout).values())
    assert [word.partition("'>")[2] for word in words] == said
    assert all("Str'" in word.partition("'>")[0] or "str" in word.partition("'>")[0] for word in words)
