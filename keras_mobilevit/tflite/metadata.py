"""What a file says of itself: TFLite metadata and the label file.

MediaPipe Tasks and Android Studio read a second flatbuffer inside the file,
`TFLITE_METADATA`, of the public schema of tflite-support
(`tensorflow_lite_support/metadata/metadata_schema.fbs`, fields of 1.0.0). The
only maintained package that writes it is MediaPipe, hundreds of megabytes and
more dependencies than this one has; the few tables needed are written here
with the `flatbuffers` runtime, by the numbers of their fields in that schema.
"""

import dataclasses
import io
import os
import zipfile
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_mobilevit.tflite import flatbuffer

IDENTIFIER = b"M001"
#: The fields of `convert(metadata=...)`.
TEXTS = ("name", "description", "version", "author", "license")
LABELS_FILE = "labels.txt"
MAX_LABEL_BYTES = 1 << 20


def check_labels(labels: Sequence[str], classes: int) -> tuple[str, ...]:
    """Returns the labels as a tuple, or raises if they cannot be written.

    Args:
        labels: one line of text for each class, in the order of the outputs.
        classes: how many classes the model has.

    Raises:
        ValueError: another number of labels, or one that is empty, spans
            lines or is no text.
    """
    if isinstance(labels, (str, bytes)):
        raise ValueError(
            "`labels` must be a sequence of strings, one for each class. "
            f"Received: labels={labels!r}"
        )
    labels = tuple(labels)
    if len(labels) != classes:
        raise ValueError(
            f"`labels` must hold one string for each of the {classes} classes "
            f"of the model. Received: {len(labels)} labels"
        )
    for label in labels:
        is_line = isinstance(label, str) and label.splitlines() == [label]
        if not is_line or not label.strip():
            raise ValueError(
                "Each of the `labels` must be one non-empty line of text. "
                f"Received: {label!r}"
            )
    return labels


@dataclasses.dataclass(frozen=True)
class Description:
    """The metadata of a file with one picture as input.

    Attributes:
        name: of the model.
        description: what it is.
        version: of the model.
        author: who made it.
        license: what it may be used under.
        mean: what is subtracted from each pixel, 0..255, first.
        std: what it is divided by then. `()` for both: not known.
    """

    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def check_texts(texts: Mapping[str, str] | None) -> dict[str, str]:
    """Returns the texts of a description, or raises if they are wrong.

    Raises:
        ValueError: another key than `TEXTS`, or a value that is no text.
    """
    if texts is None:
        return {}
    if not isinstance(texts, Mapping) or not set(texts) <= set(TEXTS):
        raise ValueError(
            f"`metadata` must be a dictionary with keys out of {TEXTS}. "
            f"Received: metadata={texts!r}"
        )
    for key, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(
                f"`metadata[{key!r}]` must be a string. Received: {value!r}"
            )
    return dict(texts)


def describe(
    data: bytes, description: Description, labels: Sequence[str] | None = None
) -> bytes:
    """Writes metadata, and a label file, into a TFLite file.

    Args:
        data: a file with one picture as input and no label file.
        description: what the metadata say.
        labels: one line of text for each class of the one output.

    Returns:
        The bytes of the file that describes itself.
    """
    model = flatbuffer.read_model(data)
    schema = flatbuffer.schema()
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = _write(description, model.subgraphs[0], bool(labels))
    entry.name, entry.buffer = flatbuffer.DESCRIPTION, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    data = flatbuffer.write_model(model)
    return append_labels(data, labels) if labels else data


def read_description(content: bytes) -> Description:
    """Reads what `describe` has written, or another writer of the schema.

    Args:
        content: the `TFLITE_METADATA` of a file.
    """
    from flatbuffers import encode
    from flatbuffers import packer
    from flatbuffers import table

    content = bytes(content)
    root = encode.Get(packer.uoffset, content, 0)
    model = _Reader(table.Table(content, root))
    texts = dict(zip(TEXTS, (model.text(f) for f in (0, 1, 2, 4, 5))))
    mean = std = ()
    for graph in model.tables(3)[:1]:
        for tensor in graph.tables(2)[:1]:
            for unit in tensor.tables(4):
                if unit.byte(0) == _NORMALIZATION:
                    mean, std = unit.table(1).floats(0), unit.table(1).floats(1)
    return Description(**texts, mean=mean, std=std)


# Numbers of the unions and enumerations of the schema.
_FEATURE, _IMAGE, _RGB = 1, 2, 1
_NORMALIZATION = 1
_AXIS_LABELS = 2
# No table of interest has more entries; damaged files may claim millions.
_MAX_ENTRIES = 64


def _write(description, graph, labelled):
    """Returns the bytes of a `ModelMetadata`."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    write = _Writer(builder)
    image = write.table({0: (_RGB,)})
    content = write.table({0: (_IMAGE,), 1: image})
    fields = {
        0: write.text("image"),
        1: write.text("One picture, RGB."),
        3: content,
    }
    if description.std:
        mean, std = (
            write.floats(v) for v in (description.mean, description.std)
        )
        options = write.table({0: mean, 1: std})
        unit = write.table({0: (_NORMALIZATION,), 1: options})
        high, low = (
            write.floats(
                [
                    (end - mean) / std
                    for mean, std in zip(description.mean, description.std)
                ]
            )
            for end in (255.0, 0.0)
        )
        fields[4] = write.tables([unit])
        fields[5] = write.table({0: high, 1: low})
    inputs = [write.table(fields)]
    outputs = []
    for tensor in graph.outputs:
        name = graph.tensors[tensor].name.decode("utf-8", "replace")
        content = write.table({0: (_FEATURE,), 1: write.table({})})
        fields = {0: write.text("scores" if labelled else name), 3: content}
        if labelled:
            file = {
                0: write.text(LABELS_FILE),
                1: write.text("The classes, in the order of the scores."),
                2: (_AXIS_LABELS,),
            }
            fields[6] = write.tables([write.table(file)])
        outputs.append(write.table(fields))
    subgraph = write.table({2: write.tables(inputs), 3: write.tables(outputs)})
    texts = zip((0, 1, 2, 4, 5), dataclasses.astuple(description))
    fields = {field: write.text(text) for field, text in texts if text}
    fields[3] = write.tables([subgraph])
    fields[7] = write.text("1.0.0")
    builder.Finish(write.table(fields), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


class _Writer:
    """Flatbuffer tables by the numbers of their fields."""

    def __init__(self, builder):
        self._builder = builder

    def text(self, value):
        return self._builder.CreateString(value)

    def floats(self, values):
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return self._builder.EndVector()

    def tables(self, offsets):
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def table(self, fields):
        """Writes a table: of each field an offset, or `(byte,)`."""
        self._builder.StartObject(max(fields, default=-1) + 1)
        for field, value in fields.items():
            if isinstance(value, tuple):
                self._builder.PrependInt8Slot(field, *value, 0)
            else:
                self._builder.PrependUOffsetTRelativeSlot(field, value, 0)
        return self._builder.EndObject()


class _Reader:
    """A flatbuffer table by the numbers of its fields."""

    def __init__(self, table: Any):
        self._table = table

    def _place(self, field):
        """Where the field is; 0 if it is not there."""
        return self._table.Offset(4 + 2 * field)

    def text(self, field):
        place = self._place(field)
        if not place:
            return ""
        text = self._table.String(self._table.Pos + place)
        return bytes(text).decode("utf-8", "replace")

    def byte(self, field):
        place = self._place(field)
        return self._table.Bytes[self._table.Pos + place] if place else 0

    def floats(self, field):
        from flatbuffers import number_types

        place = self._place(field)
        if not place:
            return ()
        start, count = self._table.Vector(place), self._table.VectorLen(place)
        return tuple(
            self._table.Get(number_types.Float32Flags, start + 4 * i)
            for i in range(min(count, _MAX_ENTRIES))
        )

    def table(self, field):
        place = self._table.Pos + self._place(field)
        return self._at(self._table.Indirect(place))

    def tables(self, field):
        place = self._place(field)
        if not place:
            return []
        start, count = self._table.Vector(place), self._table.VectorLen(place)
        return [
            self._at(self._table.Indirect(start + 4 * i))
            for i in range(min(count, _MAX_ENTRIES))
        ]

    def _at(self, position):
        from flatbuffers import table

        return _Reader(table.Table(self._table.Bytes, position))


def append_labels(data: bytes, labels: Sequence[str]) -> bytes:
    """Appends a label file to a TFLite file, as TFLite metadata stores it.

    Associated files are a ZIP archive behind the flatbuffer: readers of the
    model ignore it, readers of archives find it from the end.
    """
    archive = io.BytesIO(data)
    archive.seek(0, os.SEEK_END)
    with zipfile.ZipFile(archive, "a") as folder:
        # A fixed date makes equal conversions give equal files.
        entry = zipfile.ZipInfo(LABELS_FILE, (1980, 1, 1, 0, 0, 0))
        folder.writestr(entry, "\n".join(labels) + "\n")
    return archive.getvalue()


def read_labels(path: str | os.PathLike) -> tuple[str, ...]:
    """Returns the labels that a file carries, or `()` if it has none.

    Raises:
        ValueError: the label file is larger than any list of classes.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as folder:
        entries = [e for e in folder.infolist() if e.filename.endswith(".txt")]
        if not entries:
            return ()
        # The size is not read from the archive's own table, which may lie.
        with folder.open(entries[0]) as file:
            text = file.read(MAX_LABEL_BYTES + 1)
    if len(text) > MAX_LABEL_BYTES:
        raise ValueError(
            f"The label file must have at most {MAX_LABEL_BYTES} bytes. "
            f"Received: {entries[0].filename} in {path}"
        )
    return tuple(text.decode("utf-8").splitlines())
