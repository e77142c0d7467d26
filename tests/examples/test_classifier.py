"""The example's classifier: right on the real records, deterministic, and one line for bad ones."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "records"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("records_classifier", FOLDER / "model" / "classifier.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


classifier = load()
RECORDS = (FOLDER / "data" / "breast_cancer.csv").read_bytes()


def test_the_records_are_those_of_the_provenance() -> None:
    assert hashlib.sha256(RECORDS).hexdigest() in (FOLDER / "data" / "PROVENANCE.md").read_text()


def test_report_on_the_real_records() -> None:
    """Published results for logistic regression on these records lie at 97 to 98 % accuracy, AUC 0.99."""
    first = classifier.report(RECORDS)
    assert first == classifier.report(RECORDS)
    read = json.loads(first)
    assert (read["patients"], read["malignant"]) == (569, 212)
    assert 0.965 < read["accuracy"] < 0.99
    assert 0.99 < read["area_under_curve"] < 1
    assert sum(read["confusion"].values()) == 569
    assert read["steps"] < classifier.MAX_STEPS, "converged"


def test_shuffled_diagnoses_are_not_learned() -> None:
    """Cross-validation does not see its own answers: with the classes turned into noise it is near chance."""
    lines = RECORDS.decode().splitlines()
    classes = sorted(line[-1] for line in lines[1:])
    order = sorted(range(569), key=lambda i: hashlib.sha256(b"%d" % i).digest())
    noise = [f"{line[:-1]}{classes[position]}" for line, position in zip(lines[1:], order, strict=True)]
    read = json.loads(classifier.report("\n".join([lines[0], *noise]).encode()))
    assert 0.35 < read["area_under_curve"] < 0.65


@pytest.mark.parametrize(
    "records",
    [
        b"",
        b"\xff",
        b"1,30,malignant,benign\n" + b"1," * 30 + b"2\n",
        b"1,30,malignant,benign\n" + b"nan," * 30 + b"1\n",
        b"1,30,malignant,benign\n" + b"x," * 30 + b"1\n",
        b"2,30,malignant,benign\n" + b"1," * 30 + b"1\n",
        RECORDS[:5000],
    ],
)
def test_bad_records(records: bytes) -> None:
    with pytest.raises(classifier.RecordsError) as caught:
        classifier.report(records)
    assert "\n" not in str(caught.value)
