"""The commands by topic; each module is loaded when one of its commands is asked for."""
