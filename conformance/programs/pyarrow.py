# /// script
# dependencies = ["pyarrow"]
# [tool.strongroom]
# memory = "256M"
# threads = 16
# ///
"""Columns, Parquet in a temporary file, the compute engine's threads."""

import os
import tempfile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

table = pa.table({"ward": [n % 5 for n in range(50_000)], "value": [n * 37 % 101 for n in range(50_000)]})
print(table.group_by("ward").aggregate([("value", "mean"), ("value", "max")]).sort_by("ward").to_pydict())
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "t.parquet")
    pq.write_table(table, path, compression="zstd")
    print(pq.read_table(path, filters=[("value", ">", 98)]).num_rows, pq.read_metadata(path).num_rows)
    print(ds.dataset(path).to_table(filter=pc.field("ward") == 3).num_rows)
    print(pa.memory_map(path).size() == os.path.getsize(path))
print(
    pyarrow.csv.read_csv(pa.BufferReader(b"a,b\n1,x\n2,y\n")).to_pydict(),
    pa.default_memory_pool().backend_name,
)
