"""What a file says of itself: for now its labels."""

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

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
        if not isinstance(label, str) or len(label.splitlines()) != 1:
            raise ValueError(
                "Each of the `labels` must be one non-empty line of text. "
                f"Received: {label!r}"
            )
    return labels


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
