"""Cutting a TFLite file in two where an Edge TPU's part of it ends."""

import copy
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_mobilevit import files
from keras_mobilevit import reports
from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite import metadata
from keras_mobilevit.tflite.inspect import Inspection
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.verdicts import MAPS


@dataclasses.dataclass(frozen=True)
class Part(reports.Report):
    """One of the two files.

    Attributes:
        path: the file.
        size: bytes.
        ops: operations in it.
        inputs, outputs: their names in its signature.
    """

    path: str
    size: int
    ops: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Split(reports.Report):
    """What `split` wrote.

    Attributes:
        first: the part that an Edge TPU is predicted to run.
        second: the rest. Of its inputs, those named as outputs of `first`
            take what these give; any other is an input of the whole file.
    """

    first: Part
    second: Part

    def __str__(self) -> str:
        return reports.table(
            ("file", "MB", "ops", "inputs", "outputs"),
            [
                (
                    part.path,
                    f"{part.size / 1e6:.2f}",
                    part.ops,
                    ", ".join(part.inputs),
                    ", ".join(part.outputs),
                )
                for part in (self.first, self.second)
            ],
        )


def maps_wholly(inspection: Inspection) -> bool:
    """Whether an Edge TPU is predicted to run all of a file."""
    report = inspection.check("edgetpu", compile_it=False)
    return report.mapped == report.total


def part_paths(path: str | os.PathLike) -> tuple[Path, Path]:
    """Returns where `convert` writes the two parts of a file."""
    path = Path(path)
    return tuple(
        path.with_name(f"{path.stem}_{part}{path.suffix}")
        for part in ("first", "rest")
    )


def split(
    path: str | os.PathLike,
    first_path: str | os.PathLike,
    second_path: str | os.PathLike,
    overwrite: bool = False,
) -> Split:
    """Writes the part that an Edge TPU runs and the rest as two files.

    The first file holds what maps, from the input on, by the rules of
    `Inspection.check("edgetpu")`: every operation of it can be compiled. The
    second goes on with its outputs. Run one after the other they give the
    outputs of the whole file, bit for bit: nothing is computed anew. A tensor
    that goes from one to the other is named `cut_0`, `cut_1`, ... in the
    signatures of both; other names stay.

    Args:
        path: a `.tflite` file with one graph and one signature.
        first_path, second_path: the files to write.
        overwrite: whether they may be replaced.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: there is no file at `path`.
        FileExistsError: one to write exists and `overwrite` is `False`.
        ValueError: the file is damaged, has several graphs or signatures, or
            there is nothing to divide: all of it maps, or nothing.
    """
    for file in (first_path, second_path):
        files.check_writable(file, overwrite)
    if os.path.abspath(first_path) == os.path.abspath(second_path):
        raise ValueError(
            "`first_path` and `second_path` must differ. "
            f"Received: {first_path} for both"
        )
    inspection = inspect(path)
    graphs = {op.subgraph for op in inspection.ops}
    if graphs != {0} or len(inspection.signatures) != 1:
        raise ValueError(
            "`split` takes a file with one graph and one signature. Received: "
            f"path={path}, with {len(graphs)} graphs and "
            f"{len(inspection.signatures)} signatures"
        )
    # The compiler is not asked: its log does not tell single operations.
    verdicts = inspection.check("edgetpu", compile_it=False).verdicts
    mapped = {v.index for v in verdicts if v.verdict == MAPS}
    if not 0 < len(mapped) < len(verdicts):
        what = "all operations map" if mapped else "no operation maps"
        raise ValueError(
            "There is nothing to divide: for an Edge TPU "
            f"{what}. Received: path={path}"
        )
    data = Path(path).read_bytes()
    first, second = cut(data, mapped)
    if inspection.labels:
        second = metadata.append_labels(second, inspection.labels)
    parts = []
    for file, content in ((first_path, first), (second_path, second)):
        with files.atomic_path(file, overwrite) as temporary:
            temporary.write_bytes(content)
            found = inspect(temporary)
        (signature,) = found.signatures
        parts.append(
            Part(
                path=str(file),
                size=len(content),
                ops=len(found.ops),
                inputs=signature.inputs,
                outputs=signature.outputs,
            )
        )
    return Split(*parts)


def cut(data: bytes, indices: Iterable[int]) -> tuple[bytes, bytes]:
    """Divides the one graph of a file into two files.

    Args:
        data: the file.
        indices: operations for the first; whatever they depend on joins them.

    Returns:
        Two files, which share nothing.
    """
    model = flatbuffer.read_model(data)
    graph = model.subgraphs[0]
    wanted = _with_sources(graph, set(indices))
    ops = list(enumerate(graph.operators))
    own = [
        {int(t) for i, op in ops if (i in wanted) is side for t in op.outputs}
        for side in (True, False)
    ]
    inputs = [int(t) for t in graph.inputs]
    outputs = [int(t) for t in graph.outputs]
    needed = {int(t) for i, op in ops if i not in wanted for t in op.inputs}
    needed |= set(outputs) & set(inputs)
    # In the order in which they are computed.
    border = [
        int(t)
        for i, op in ops
        if i in wanted
        for t in op.outputs
        if int(t) in needed
    ]
    read = {int(t) for i, op in ops if i in wanted for t in op.inputs}
    names = {tensor: f"cut_{i}" for i, tensor in enumerate(border)}
    first_ends = (
        [t for t in inputs if t in read],
        border + [t for t in outputs if t in own[0] and t not in names],
    )
    second_ends = (
        border + [t for t in inputs if t in needed],
        [t for t in outputs if t not in own[0]],
    )
    rest = {i for i, _ in ops} - wanted
    return (
        _part(model, wanted, *first_ends, names),
        _part(model, rest, *second_ends, names),
    )


def _with_sources(graph: Any, indices: set[int]) -> set[int]:
    """Adds the operations on which those at `indices` depend."""
    writer = {
        int(t): i for i, op in enumerate(graph.operators) for t in op.outputs
    }
    frontier, found = list(indices), set()
    while frontier:
        index = frontier.pop()
        if index not in found:
            found.add(index)
            read = map(int, graph.operators[index].inputs)
            frontier.extend(writer[t] for t in read if t in writer)
    return found


def _part(
    model: Any,
    indices: set[int],
    inputs: list[int],
    outputs: list[int],
    names: dict[int, str],
) -> bytes:
    """Returns a file with some of the operations of another."""
    (whole,) = model.signatureDefs
    # A tensor that is an end of the whole file keeps its name.
    old = [*whole.inputs, *whole.outputs]
    names = names | {int(named.tensorIndex): named.name for named in old}
    part = flatbuffer.excerpt(model, indices, inputs, outputs)
    signature = copy.copy(whole)
    for ends, tensors in (("inputs", inputs), ("outputs", outputs)):
        places = getattr(part.subgraphs[0], ends)
        named = [
            _named(names.get(tensor, f"tensor_{tensor}"), place)
            for tensor, place in zip(tensors, places)
        ]
        setattr(signature, ends, named)
    part.signatureDefs = [signature]
    return flatbuffer.write_model(part)


def _named(name: Any, tensor: int) -> Any:
    """Returns the entry of a signature for a tensor."""
    entry = flatbuffer.schema().TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry
