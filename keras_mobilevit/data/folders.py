"""Class folders: finding the pictures and reading each once."""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_mobilevit.data.dataset import Source
from keras_mobilevit.data.dataset import source_of
from keras_mobilevit.data.pictures import fit_picture
from keras_mobilevit.data.pictures import load_picture

CACHE_BYTES = 200_000_000  # decoded, for each of train and val
_NAMED = 20  # files that a warning names
_WORTH_A_BAR = 1000  # files

Labelled = list[tuple[Path, int]]


def find(
    data_dir: str | os.PathLike, val_fraction: float, seed: int
) -> tuple[tuple[str, ...], Labelled, Labelled]:
    """Lists the files of a folder, see `load_folder`.

    Returns:
        The class names, and the files of train and of val with their labels.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise FileNotFoundError(
            "`data_dir` must be a folder of class folders. "
            f"Received: data_dir={str(data_dir)!r}, which is "
            f"{'a file' if data_dir.exists() else 'not there'}"
        )
    parts = [data_dir / "train", data_dir / "val"]
    present = [part.is_dir() for part in parts]
    if all(present):
        names, (train, val) = _same_classes(*map(_classes, parts))
    # A class may well be called "train": it holds files.
    elif any(present) and _folders(parts[present.index(True)]):
        raise ValueError(
            "`data_dir` must hold both `train` and `val`, or class folders. "
            f"Received: data_dir={str(data_dir)!r}, without "
            f"`{parts[present.index(False)].name}`"
        )
    else:
        classes = _classes(data_dir)
        names = tuple(classes)
        train, val = _split(classes, val_fraction, seed)
    return names, *(
        [(file, label) for label, name in enumerate(names) for file in p[name]]
        for p in (train, val)
    )


def read(
    data_dir: str | os.PathLike,
    class_names: tuple[str, ...],
    train: Labelled,
    val: Labelled,
    image_size: int,
    crop_pct: float,
) -> tuple[Source, Source]:
    """Decodes every file once; leaves out, in one warning, what is no picture.

    Small sets stay in memory. The pictures of val are prepared.
    """

    # Augmentation enlarges no part of a picture by much more than this.
    def load_train(file):
        return load_picture(file, short_side=2 * image_size)

    def load_val(file):
        picture = load_picture(file)
        return fit_picture(picture, image_size, image_size, crop_pct)

    bad, sources = [], []
    for part, labelled, load in (
        ("train", train, load_train),
        ("val", val, load_val),
    ):
        good, cache, unreadable = _decode(labelled, load, part)
        bad += unreadable
        lost = set(range(len(class_names))) - {label for _, label in good}
        if lost:
            _warn(bad, data_dir)
            names = ", ".join(repr(class_names[label]) for label in lost)
            raise ValueError(
                f"Each class must have a readable picture for {part}. "
                f"Received: data_dir={str(data_dir)!r}, with none in {names}"
            )
        labels = np.array([label for _, label in good])
        sources.append(source_of(_reader(good, cache, load), labels))
    _warn(bad, data_dir)
    return tuple(sources)


def _decode(
    labelled: Labelled, load: Callable[[Path], np.ndarray], part: str
) -> tuple[Labelled, dict[int, np.ndarray], list[Path]]:
    from tqdm import tqdm

    def attempt(file):
        try:
            return load(file)
        except (ValueError, OSError):
            return None

    good, cache, unreadable, used = [], {}, [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = tqdm(
            pool.map(attempt, (file for file, _ in labelled)),
            f"Reading {part}",
            len(labelled),
            disable=len(labelled) < _WORTH_A_BAR,
        )
        for (file, label), picture in zip(labelled, pictures):
            if picture is None:
                unreadable.append(file)
                continue
            used += picture.nbytes
            if used <= CACHE_BYTES:
                cache[len(good)] = picture
            good.append((file, label))
    return good, cache, unreadable


def _reader(good, cache, load):
    def picture(index):
        cached = cache.get(int(index))
        return load(good[index][0]) if cached is None else cached

    return picture


def _warn(bad, data_dir):
    if not bad:
        return
    names = [str(file.relative_to(data_dir)) for file in bad[:_NAMED]]
    if len(bad) > _NAMED:
        names.append(f"and {len(bad) - _NAMED} more")
    warnings.warn(
        f"{len(bad)} files in {data_dir} are no readable pictures and are "
        f"left out: {', '.join(names)}",
        stacklevel=4,
    )


def _folders(folder):
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The files of each class folder, both sorted."""
    classes = {
        entry.name: sorted(
            file
            for file in entry.rglob("*")
            if file.is_file() and not file.name.startswith(".")
        )
        for entry in _folders(folder)
    }
    if len(classes) < 2:
        raise ValueError(
            "`data_dir` must hold at least two class folders. Received: "
            f"{str(folder)!r} with {list(classes) or 'none'}"
        )
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise ValueError(
            "Each class folder must hold a picture. Received: "
            f"{str(folder)!r}, in which these are empty: {', '.join(empty)}"
        )
    return classes


def _same_classes(train, val):
    for part, missing in (
        ("train", sorted(set(val) - set(train))),
        ("val", sorted(set(train) - set(val))),
    ):
        if missing:
            raise ValueError(
                "`train` and `val` must have the same class folders. "
                f"Received: none in `{part}` for {', '.join(missing)}"
            )
    return tuple(train), (train, val)


def _split(classes, val_fraction, seed):
    generator = np.random.default_rng(seed)
    train, val = {}, {}
    for name, files in classes.items():
        if len(files) < 2:
            raise ValueError(
                "A class must have two pictures to be split into train and "
                f"val. Received: {len(files)} in {name!r}"
            )
        count = min(max(1, round(val_fraction * len(files))), len(files) - 1)
        order = generator.permutation(len(files))
        val[name] = [files[i] for i in sorted(order[:count])]
        train[name] = [files[i] for i in sorted(order[count:])]
    return train, val
