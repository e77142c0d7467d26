"""Every figure of the design's table, measured side by side: ``python -m benchmarks`` (or ``make bench``)."""
