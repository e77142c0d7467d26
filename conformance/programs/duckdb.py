# /// script
# dependencies = ["duckdb"]
# [tool.strongroom]
# memory = "256M"
# threads = 12
# [tool.strongroom.files]
# "/data" = "encrypted:sealed"
# ///
"""SQL on all of its threads; a database on an encrypted mount."""

import os

import duckdb

FOLDER = "/data" if os.path.exists("/dev/attestation") else "."
path = f"{FOLDER}/records.duckdb"
if os.path.exists(path):
    os.unlink(path)
with duckdb.connect(path) as database:
    database.execute("create table r as select i % 5 as ward, i * 37 % 101 as value from range(200000) t(i)")
    print(
        database.execute(
            "select ward, round(avg(value), 3), max(value) from r group by 1 order by 1"
        ).fetchall()
    )
with duckdb.connect(path, read_only=True) as database:
    print(database.execute("select count(*), sum(value) from r").fetchall())
    print(database.execute("select quantile_cont(value, 0.9) from r").fetchall())
