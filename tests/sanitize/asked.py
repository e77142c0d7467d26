"""A sanitized program that is asked line by line."""

from __future__ import annotations

import os
import subprocess

# A program that is killed is a finding; memory that is still held at its end is not.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99"}


class Asked:
    """A program that answers each line with a line."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def __call__(self, *words: object) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            assert self._process.stderr is not None
            raise AssertionError(f"{words}: {self._process.stderr.read()[:3000]}")
        return answer.strip()

    def close(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0
