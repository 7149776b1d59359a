"""Reports as tables and as JSON."""

import dataclasses
import json
import pathlib

import numpy as np

from keras_mobilevit import reports


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    value: float


@dataclasses.dataclass(frozen=True)
class Example(reports.Report):
    rows: tuple[Row, ...]
    best: float
    count: object = None
    path: object = None


def test_tables_align():
    text = reports.table(
        ("name", "top-1 %"), [("a", 99.5), ("longer", "7.25"), ("none", None)]
    )
    assert text.splitlines() == [
        "| name   | top-1 % |",
        "| ------ | ------: |",
        "| a      |    99.5 |",
        "| longer |    7.25 |",
        "| none   |       - |",
    ]


def test_a_table_without_rows():
    assert reports.table(("a", "b"), []).splitlines()[0] == "| a | b |"


def test_json_holds_every_field_in_order():
    report = Example((Row("a", 1.5),), 0.25, np.int64(3), pathlib.Path("x/y"))
    assert json.loads(report.to_json()) == {
        "rows": [{"name": "a", "value": 1.5}],
        "best": 0.25,
        "count": 3,
        "path": "x/y",
    }
    assert list(json.loads(report.to_json())) == [
        "rows",
        "best",
        "count",
        "path",
    ]


def test_json_is_strict():
    """JSON has no NaN and no infinity; other readers refuse them."""
    report = Example((Row("a", float("nan")),), float("inf"), np.float32("nan"))
    found = json.loads(report.to_json(), parse_constant=lambda name: 1 / 0)
    assert found["rows"][0]["value"] is None and found["best"] is None
    assert found["count"] is None
