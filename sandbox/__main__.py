"""Run the sandbox's commands alone: python -m ansible_collections.marketsage.rollback.sandbox."""
from ansible_collections.marketsage.rollback.sandbox.commands import sandbox

sandbox()
