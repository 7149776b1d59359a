"""What every report has in common: a table to read and JSON to keep."""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Report:
    """Base of the frozen dataclasses that this package's functions return.

    A subclass adds its fields and `__str__`, a table in plain text.
    """

    def to_json(self) -> str:
        """Returns the report as indented JSON, keys in field order.

        NaN and infinity, which JSON does not have, become `null`.
        """
        return json.dumps(
            _plain(dataclasses.asdict(self)), indent=2, allow_nan=False
        )


def _plain(value: Any) -> Any:
    """Turns NumPy's numbers, arrays and paths into what JSON has."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Formats rows as a Markdown table that also reads well as plain text.

    Columns are padded to equal width; columns of numbers are aligned to the
    right. `None` is printed as a dash.

    Args:
        header: the names of the columns.
        rows: one sequence for each row, as long as `header`.

    Returns:
        The table, without a newline at its end.
    """
    columns = list(zip(*rows)) if rows else [()] * len(header)
    right = [all(_is_number(cell) for cell in column) for column in columns]
    cells = [["-" if c is None else str(c) for c in row] for row in rows]
    widths = [
        max(len(line[i]) for line in [list(header), *cells])
        for i in range(len(header))
    ]

    def line(values):
        padded = [
            value.rjust(width) if is_right else value.ljust(width)
            for value, width, is_right in zip(values, widths, right)
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [
        "-" * (width - 1) + (":" if is_right else "-")
        for width, is_right in zip(widths, right)
    ]
    return "\n".join([line(header), line(rule), *map(line, cells)])


def _is_number(cell: object) -> bool:
    if cell is None or isinstance(cell, (int, float)):
        return True
    text = str(cell).split()[0] if str(cell).split() else ""
    return text.rstrip("%x").replace(".", "", 1).lstrip("+-").isdigit()
