# /// script
# dependencies = ["polars"]
# [tool.strongroom]
# memory = "512M"
# threads = 16
# [tool.strongroom.env]
# POLARS_SKIP_CPU_CHECK = "1"
# [tool.conformance]
# note = "its check of the processor is code made at run time: skipped by its own variable"
# ///
"""Frames in Rust: a lazy query on all its threads, a join, CSV and Parquet."""

import io

import polars as pl

frame = pl.DataFrame({"ward": [n % 5 for n in range(50_000)], "value": [n * 37 % 101 for n in range(50_000)]})
query = frame.lazy().group_by("ward").agg(pl.col("value").mean().round(3).alias("mean"), pl.len())
print(query.sort("ward").collect().to_dicts())
names = pl.DataFrame({"ward": list(range(5)), "name": list("abcde")})
print(frame.join(names, on="ward").filter(pl.col("value") > 99)["name"].value_counts().sort("name").rows())
out = io.BytesIO()
frame.write_parquet(out)
print(pl.read_parquet(io.BytesIO(out.getvalue())).equals(frame))
print(pl.read_csv(io.StringIO("a,day\n1,2026-01-31\n"), try_parse_dates=True).schema)
