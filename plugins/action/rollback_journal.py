# Copyright: (c) 2026, MarketSage
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keep a host's journal with the run; see the module's documentation."""
from __future__ import annotations

import os
import shlex
from typing import Any, ClassVar

from ansible_collections.marketsage.rollback.plugins.module_utils import validate
from ansible_collections.marketsage.rollback.plugins.module_utils.control import Control
from ansible_collections.marketsage.rollback.plugins.module_utils.errors import RollbackError
from ansible_collections.marketsage.rollback.plugins.module_utils.files import write_atomically
from ansible_collections.marketsage.rollback.plugins.plugin_utils.control_action import ControlAction


class ActionModule(ControlAction):
    _requires_connection = True
    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "control_dir": {"type": "path", "required": True},
        "run_id": {"type": "str", "required": True},
        # The host's path: it is not the controller that expands it.
        "state_dir": {"type": "str", "required": True},
    }

    def work(self, arguments: dict[str, Any]) -> dict[str, Any]:
        run = validate.run_id(arguments["run_id"])
        text = self._read(os.path.join(arguments["state_dir"], "journal", f"{run}.jsonl"))
        if text is None:
            return {"changed": False, "journal": None}
        host = self._templar.available_variables["inventory_hostname"]
        kept = Control(arguments["control_dir"]).path("runs", run, "journals", f"{host}.jsonl")
        if not self._task.check_mode:
            os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
            write_atomically(kept, text)
        return {"changed": False, "journal": kept}

    def _read(self, path: str) -> str | None:
        """The file's text; None where there is no such file."""
        path = shlex.quote(self._remote_expand_user(path))
        # Said on standard input, so that no terminal comes in between and changes the ends of lines.
        answer = self._low_level_execute_command("sh", in_data=f"test ! -e {path} || cat {path}\n".encode())
        if answer["rc"]:
            raise RollbackError(f"{path} cannot be read: {answer['stderr'].strip()[-300:]}")
        text: str = answer["stdout"]
        return text or None
