"""Reads the file beside it and prints what it says."""

import os

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "dose.txt"), encoding="ascii") as file:
    print(file.read().strip())
