# /// script
# dependencies = ["pandas"]
# [tool.strongroom]
# memory = "256M"
# ///
"""Records from CSV: types, dates, a grouping, a join, a time series with zones."""

import io

import pandas as pd

rows = "\n".join(f"{n % 5},{n * 37 % 101},2026-01-{n % 28 + 1:02}" for n in range(500))
frame = pd.read_csv(io.StringIO(f"ward,value,day\n{rows}\n"), parse_dates=["day"])
print(frame.dtypes.astype(str).to_dict())
print(frame.groupby("ward")["value"].agg(["mean", "std", "max"]).round(3).to_string())
names = pd.DataFrame({"ward": range(5), "name": list("abcde")})
print(frame.merge(names, on="ward").query("value > 99").sort_values(["day", "name"]).to_csv(index=False))
weekly = frame.set_index("day").tz_localize("Europe/Berlin")["value"].resample("W").sum()
print(weekly.to_string())
