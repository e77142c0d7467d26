"""Virtual machines: sizes, records, life cycle, and the driver that gives them a place to run."""
