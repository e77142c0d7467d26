"""Benign or malignant? Logistic regression with cross-validation, in plain Python, the same on every run.

The same code is measured into the enclave and run in the open by the data owner: the two reports are equal, byte for
byte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from operator import mul

FOLDS = 5
RIDGE = 1.0  # L2 penalty on standardized features; the intercept is free
MAX_STEPS = 25
MOMENTS = ("mean", "error", "worst")
MEASUREMENTS = (
    "radius", "texture", "perimeter", "area", "smoothness",
    "compactness", "concavity", "concave points", "symmetry", "fractal dimension",
)  # fmt: skip
FEATURES = [f"{name} ({moment})" for moment in MOMENTS for name in MEASUREMENTS]

Row = list[float]


class RecordsError(ValueError):
    """The records are not what they should be; the text names the line and nothing of its content."""


def parse(text: str) -> tuple[list[Row], list[int]]:
    """Features (one list of 30 a patient) and classes (1 malignant) of the CSV. Raises RecordsError."""
    lines = text.splitlines()
    header = lines[0].split(",") if lines else []
    if len(header) != 4 or header[2:] != ["malignant", "benign"] or not header[0].isdigit():
        raise RecordsError("line 1: not `patients,measurements,malignant,benign`")
    if header[1] != str(len(FEATURES)) or int(header[0]) != len(lines) - 1:
        raise RecordsError(
            f"line 1: says {header[0]} patients with {header[1]} measurements; there are {len(lines) - 1}"
        )
    rows: list[Row] = []
    classes: list[int] = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split(",")
        if len(cells) != len(FEATURES) + 1 or cells[-1] not in ("0", "1"):
            raise RecordsError(f"line {number}: not {len(FEATURES)} numbers and a class")
        try:
            row = [float(cell) for cell in cells[:-1]]
        except ValueError:
            raise RecordsError(f"line {number}: not a number") from None
        if not all(map(math.isfinite, row)):
            raise RecordsError(f"line {number}: not a finite number")
        rows.append(row)
        classes.append(1 if cells[-1] == "0" else 0)
    return rows, classes


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    return math.fsum(map(mul, left, right))


def sigmoid(value: float) -> float:
    if value < 0:
        power = math.exp(max(value, -700.0))
        return power / (1.0 + power)
    return 1.0 / (1.0 + math.exp(-min(value, 700.0)))


def solve(matrix: list[Row], right: Row) -> Row:
    """x of ``matrix`` x = ``right`` for a symmetric positive definite matrix, by Cholesky's method."""
    size = len(right)
    lower: list[Row] = []
    for i in range(size):
        row: Row = []
        for j in range(i):
            row.append((matrix[i][j] - sum(map(mul, row, lower[j]))) / lower[j][j])
        row.append(math.sqrt(matrix[i][i] - sum(map(mul, row, row))))
        lower.append(row)
    half: Row = []
    for i in range(size):
        half.append((right[i] - sum(map(mul, half, lower[i]))) / lower[i][i])
    answer = [0.0] * size
    for i in reversed(range(size)):
        rest = sum(answer[j] * lower[j][i] for j in range(i + 1, size))
        answer[i] = (half[i] - rest) / lower[i][i]
    return answer


class Model:
    """Standardization and weights (the last one is the intercept)."""

    def __init__(self, rows: list[Row], classes: list[int]) -> None:
        columns = list(zip(*rows, strict=True))
        self.means = [math.fsum(column) / len(column) for column in columns]
        self.scales = [
            math.sqrt(math.fsum((x - mean) ** 2 for x in column) / len(column)) or 1.0
            for column, mean in zip(columns, self.means, strict=True)
        ]
        self.weights = [0.0] * (len(columns) + 1)
        self.steps = 0
        self._fit([self._standard(row) for row in rows], classes)

    def _standard(self, row: Row) -> Row:
        scaled = [(x - mean) / scale for x, mean, scale in zip(row, self.means, self.scales, strict=True)]
        return [*scaled, 1.0]

    def _fit(self, rows: list[Row], classes: list[int]) -> None:
        """Newton's method on the penalized log-likelihood (iteratively reweighted least squares)."""
        columns = list(zip(*rows, strict=True))
        size = len(columns)
        for self.steps in range(1, MAX_STEPS + 1):
            chances = [sigmoid(dot(row, self.weights)) for row in rows]
            wrong = [actual - chance for actual, chance in zip(classes, chances, strict=True)]
            curve = [max(chance * (1.0 - chance), 1e-9) for chance in chances]
            gradient = [sum(map(mul, column, wrong)) for column in columns]
            hessian: list[Row] = []
            for i in range(size):
                weighted = list(map(mul, columns[i], curve))
                hessian.append(
                    [sum(map(mul, weighted, columns[j])) for j in range(i + 1)] + [0.0] * (size - i - 1)
                )
            for i in range(size - 1):
                gradient[i] -= RIDGE * self.weights[i]
                hessian[i][i] += RIDGE
            step = solve(hessian, gradient)
            self.weights = [weight + change for weight, change in zip(self.weights, step, strict=True)]
            if max(map(abs, step)) < 1e-9:
                break

    def chance(self, row: Row) -> float:
        """Of malignancy, 0 to 1."""
        return sigmoid(dot(self._standard(row), self.weights))


def folds(classes: list[int]) -> list[list[int]]:
    """Patients' numbers in FOLDS parts with the same share of each class, by their order in the file."""
    parts: list[list[int]] = [[] for _ in range(FOLDS)]
    for kind in (0, 1):
        for position, patient in enumerate(index for index, actual in enumerate(classes) if actual == kind):
            parts[position % FOLDS].append(patient)
    return parts


def area_under_curve(chances: list[float], classes: list[int]) -> float:
    """Of the receiver operating characteristic: the share of pairs in the right order, ties half."""
    ranked = sorted(range(len(chances)), key=chances.__getitem__)
    total = 0.0
    at = 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and chances[ranked[end]] == chances[ranked[at]]:
            end += 1
        total += (at + end + 1) / 2 * sum(classes[patient] for patient in ranked[at:end])
        at = end
    positives = sum(classes)
    return (total - positives * (positives + 1) / 2) / (positives * (len(classes) - positives))


def report(records: bytes) -> bytes:
    """The report on the records (CSV) as JSON, in one form only. Raises RecordsError."""
    try:
        text = records.decode("ascii")
    except UnicodeDecodeError:
        raise RecordsError("the records are not ASCII text") from None
    rows, classes = parse(text)
    if min(sum(classes), len(classes) - sum(classes)) < FOLDS:
        raise RecordsError(f"fewer than {FOLDS} patients of a class")
    chances = [0.0] * len(rows)
    accuracies = []
    for part in folds(classes):
        held = set(part)
        train = [index for index in range(len(rows)) if index not in held]
        model = Model([rows[index] for index in train], [classes[index] for index in train])
        for index in part:
            chances[index] = model.chance(rows[index])
        accuracies.append(sum((chances[index] >= 0.5) == bool(classes[index]) for index in part) / len(part))
    said = [chance >= 0.5 for chance in chances]
    pairs = list(zip(said, classes, strict=True))
    true_positive, false_positive = pairs.count((True, 1)), pairs.count((True, 0))
    true_negative, false_negative = pairs.count((False, 0)), pairs.count((False, 1))
    final = Model(rows, classes)
    strongest = sorted(zip(FEATURES, final.weights, strict=False), key=lambda pair: (-abs(pair[1]), pair[0]))[
        :8
    ]
    # Rounded: the last bits of exp() may differ between processors, and no reader wants them.
    result = {
        "patients": len(rows),
        "malignant": sum(classes),
        "method": f"logistic regression, ridge {RIDGE}, {FOLDS}-fold cross-validation",
        "accuracy": round((true_positive + true_negative) / len(rows), 6),
        "accuracy_by_fold": [round(value, 6) for value in accuracies],
        "sensitivity": round(true_positive / (true_positive + false_negative), 6),
        "specificity": round(true_negative / (true_negative + false_positive), 6),
        "area_under_curve": round(area_under_curve(chances, classes), 6),
        "confusion": {
            "true_positive": true_positive, "false_positive": false_positive,
            "true_negative": true_negative, "false_negative": false_negative,
        },
        "steps": final.steps,
        "strongest_weights": [[name, round(weight, 6)] for name, weight in strongest],
    }  # fmt: skip
    return json.dumps(result, indent=1).encode() + b"\n"
