"""Guest: numpy computes right, with its BLAS's threads."""

from __future__ import annotations

import hashlib
import os

import checks
import numpy as np


def check_linear_algebra() -> None:
    matrix = np.random.default_rng(1).random((200, 200))
    assert np.abs(matrix @ np.linalg.inv(matrix) - np.eye(200)).max() < 1e-9
    values, vectors = np.linalg.eigh(matrix + matrix.T)
    assert np.abs((matrix + matrix.T) @ vectors - vectors * values).max() < 1e-9
    u, s, v = np.linalg.svd(matrix)
    assert np.abs((u * s) @ v - matrix).max() < 1e-9


def check_product_by_threads_of_blas() -> None:
    """Large enough that OpenBLAS shares it among its threads: small integers, so that the result is exact."""
    one = (np.arange(600 * 600) % 7).reshape(600, 600)
    product = one.astype(float) @ one.astype(float).T
    assert (product == one @ one.T).all()


def check_generator_is_the_same_everywhere() -> None:
    numbers = np.random.default_rng(2026).standard_normal(1000)
    digest = hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest()
    assert digest == "4c0c21635c6528c16c6ccf22dbc65be305d7b1e0487aff1bfe1527ad9251ab55"


def check_fft_sort_and_strings() -> None:
    signal = np.random.default_rng(3).random(1 << 12)
    assert np.abs(np.fft.ifft(np.fft.fft(signal)).real - signal).max() < 1e-12
    assert (np.sort(signal) == np.array(sorted(signal.tolist()))).all()
    assert (np.strings.upper(np.array(["a", "bc"])) == np.array(["A", "BC"])).all()


def check_file_of_an_array() -> None:
    array = np.arange(10000.0)
    np.save("/tmp/a.npy", array)
    assert (np.load("/tmp/a.npy") == array).all()
    assert (np.load("/tmp/a.npy", mmap_mode="r") == array).all()
    os.unlink("/tmp/a.npy")


if __name__ == "__main__":
    checks.run(globals())
