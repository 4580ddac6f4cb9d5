from __future__ import annotations

import json
import subprocess
import sys

from ansible_collections.marketsage.rollback.wrapper.launch import as_variables_file

# In a process of its own: once the controller's half of Ansible is loaded, modules warn in another way.
READ = """
import json, sys
from ansible.parsing.dataloader import DataLoader
words = DataLoader().load(sys.stdin.read()).values()
print(json.dumps([[isinstance(word, str), str(word)] for word in words]))
"""


def test_what_an_operator_said_reaches_ansible_to_the_letter() -> None:
    said = ["123456789012", "2026-11-24T03:15:00Z", "yes", "{{ 1 + 1 }}", 'a "b" \\ ü 🚨', ""]
    text = as_variables_file({f"word_{number}": word for number, word in enumerate(said)})
    read = subprocess.run([sys.executable, "-c", READ], input=text, capture_output=True, text=True, check=True)
    assert json.loads(read.stdout) == [[True, word] for word in said]
