"""Run prisma_migrate, and kill this process at a chosen point: before or after a statement or a journal entry."""
from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from typing import Any

import psycopg
from ansible.module_utils.testing import patch_module_args
from ansible_collections.marketsage.rollback.plugins.module_utils.journal import Journal
from ansible_collections.marketsage.rollback.plugins.modules import prisma_migrate

chosen, points = int(sys.argv[1]), itertools.count(1)


def point() -> None:
    if next(points) == chosen:
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str) -> None:
    real = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        point()
        result = real(*arguments, **options)
        point()
        return result

    setattr(owner, name, call)


around(psycopg.Cursor, "execute")
around(psycopg.Connection, "commit")
around(Journal, "append")
with patch_module_args(json.loads(sys.argv[2])):
    prisma_migrate.main()
