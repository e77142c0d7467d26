"""Counts its runs in a file: sealed inside an enclave, plain as the control (the folder is named in VAULT then)."""

import os

vault = "/vault" if os.path.isdir("/vault") else os.environ["VAULT"]
path = os.path.join(vault, "count")
try:
    with open(path, encoding="ascii") as file:
        count = int(file.read())
except FileNotFoundError:
    count = 0
with open(path, "w", encoding="ascii") as file:
    file.write(str(count + 1))
print(f"run {count + 1}")
