"""``python -m strongroom``."""

from strongroom.cli.main import entry

entry()
