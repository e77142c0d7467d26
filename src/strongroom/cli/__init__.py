"""The command line: one file a verb, found by ``strongroom.cli.main``."""
