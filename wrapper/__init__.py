"""The rollback command: chooses the playbook, launches it, shows what happens; the rules are in the collection."""
