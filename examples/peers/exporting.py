"""What the export scripts share; it runs in every peer's environment."""

import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

#: Side of the square pictures of each model.
SIZES = {
    "mobilevit_xxs": 256,
    "mobilevit_xs": 256,
    "mobilevit_s": 256,
    "mobilevitv2_050": 256,
    "mobilevitv2_100": 256,
    "mobilenet_v2": 224,
    "mobilenet_v3_large": 224,
    "efficientnet_v2_b0": 224,
    "deit_tiny": 224,
    "pit_xs": 224,
}
CALIBRATION_PICTURES = 1


def pictures(size: int, scale: float = 255.0) -> np.ndarray:
    """Returns noise: what a file computes takes equally long on anything."""
    generator = np.random.default_rng(1)
    shape = (CALIBRATION_PICTURES, size, size, 3)
    return (scale * generator.random(shape)).astype("float32")


def random_weight(name: str, shape: tuple, fan_in: int) -> np.ndarray:
    """Returns numbers for a weight, none of which a converter can fold away.

    Args:
        name: its name, unlike any other: what is called a variance becomes
            positive, a factor of a norm about 1.
        shape: its shape.
        fan_in: how many inputs one of its outputs sums up; 0 for a vector.
    """
    # Equal weights would be stored once, and a file that reads less is faster.
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if fan_in:
        return generator.normal(0, (1 / fan_in) ** 0.5, shape)
    if "var" in name or "gamma" in name or name.endswith("weight"):
        return generator.uniform(0.5, 1.5, shape)
    return generator.normal(0, 0.1, shape)


def run(exporters: dict[str, Callable[[str, str, Path], None]]) -> None:
    """Writes the files that are not there yet.

    `FOLDER/MODEL.EXPORTER.PRECISION.EXTENSION` for each; where one cannot be
    written, the reason stands in a file of that name with `.missing` behind
    it. The command line is `FOLDER [word ...]`: only names with one of the
    words.

    Args:
        exporters: `{name: write}`, where a name is `MODEL.EXPORTER.PRECISION
            .EXTENSION` and `write(path)` writes the file.
    """
    folder, *words = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, write in exporters.items():
        path = Path(folder) / name
        is_wanted = not words or any(word in name for word in words)
        if path.exists() or not is_wanted:
            continue
        missing = path.with_name(f"{name}.missing")
        temporary = path.with_name(f"{path.stem}.part{path.suffix}")
        try:
            write(temporary)
            os.replace(temporary, path)
            missing.unlink(missing_ok=True)
            print(f"{name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)
        except Exception as error:  # Peers fail in ways of their own.
            temporary.unlink(missing_ok=True)
            reason = f"{type(error).__name__}: {error}".strip()
            missing.write_text(reason[:2000])
            print(f"{name}: {reason[:200]}", file=sys.stderr, flush=True)
