"""A model card: what a file is, beside it, for people to read."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit.tflite.benchmark import benchmark
from keras_mobilevit.tflite.evaluate import evaluate
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.targets import TARGETS
from keras_mobilevit.weights import PUBLISHED

#: Rounds that the file and its float32 twin are timed in.
RUNS = 30
_PIXELS = {1.0: "as they are", 255.0: "divided by 255"}


def write_card(
    card: str | os.PathLike,
    path: str | os.PathLike,
    float_file: str | os.PathLike,
    facts: Mapping[str, Any],
    validation_data: Any = None,
    overwrite: bool = False,
) -> None:
    """Measures a file and writes its model card, in Markdown.

    Args:
        card: the file to write.
        path: the `.tflite` file that it is about.
        float_file: the same model as a float32 file, to compare with.
        facts: what is known of how the file was made, by name.
        validation_data: `(pictures, labels)` as of `evaluate`. Pictures alone
            tell no accuracy.
        overwrite: whether `card` may be replaced.

    Raises:
        FileExistsError: `card` exists and `overwrite` is `False`.
        ValueError: `validation_data` does not fit the file.
    """
    found = inspect(path)
    about = found.about
    sections = [
        f"# {about.name}",
        about.description,
        "## The file",
        reports.table(("", ""), _file_facts(found, facts)),
        "## Accuracy",
        _accuracy(path, float_file, validation_data),
        "## Speed",
        _speed(path, float_file),
        "## Devices",
        _verdicts(found),
        "## Licence",
        about.license or _unknown_licence(),
    ]
    with files.atomic_path(card, overwrite) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _file_facts(found, facts):
    (source, *_), about = found.inputs, found.about
    shape = "x".join(map(str, source.shape))
    scale = about.std[0] if about.std else None
    rows = [
        ("file", os.path.basename(found.path)),
        ("size", f"{found.size / 1e6:.2f} MB"),
        ("input", f"`{source.name}`, {source.dtype} {shape}, RGB"),
        ("pixels 0..255", _PIXELS.get(scale, "their scaling is not known")),
        ("operations", f"{len(found.ops)}"),
        ("in floating point", f"{sum(found.float_ops.values())}"),
        ("multiply-accumulates", f"{found.macs / 1e6:.0f} M"),
        ("oldest runtime", found.min_runtime),
        ("classes", ", ".join(found.labels).replace("|", "/") or "not named"),
        ("version", about.version or "not stated"),
        ("author", about.author or "not stated"),
    ]
    return [*rows, *facts.items()]


def _accuracy(path, float_file, validation_data):
    if validation_data is None or isinstance(validation_data, np.ndarray):
        return "Not measured: there were no labelled pictures."
    rows = []
    for name, file in (("float32", float_file), ("this file", path)):
        measured = evaluate(file, validation_data, progress=False)
        low, high = (100 * end for end in measured.interval)
        rows.append(
            (name, f"{100 * measured.top1:.2f} % ({low:.2f} to {high:.2f})")
        )
    table = reports.table(("", "top-1 (95 % interval)"), rows)
    return f"{table}\n\nMeasured on {measured.n} pictures."


def _speed(path, float_file):
    timings = benchmark(
        [float_file, path], threads=(1,), runs=RUNS, progress=False
    ).timings
    return (
        f"{timings[1].ratio:.2f} times the time of the float32 file, one "
        "thread, interleaved, on the CPU that converted it; other processors "
        "have other ratios."
    )


def _verdicts(found):
    rows = []
    for name, target in TARGETS.items():
        verdict = found.check(name)
        share = f"{verdict.mapped} of {verdict.total} operations"
        rows.append((name, target.description, share))
    return reports.table(("target", "", "accelerated"), rows)


def _unknown_licence():
    published = ", ".join(sorted({c.licence for c in PUBLISHED.values()}))
    return (
        "Not stated. If training started from published weights, theirs holds "
        f"too: {published}."
    )
