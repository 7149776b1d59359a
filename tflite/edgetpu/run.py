"""Classifies a picture on an Edge TPU, or on the CPU where there is none.

    python run.py picture.jpg flowers_first_edgetpu.tflite flowers_rest.tflite

The files run one after the other: what one gives, the next one takes, by
name. One whole file will do as well. Copy this script to the device; it needs
`pip install ai-edge-litert numpy pillow`, and `libedgetpu` for the Edge TPU.
"""

import argparse
import ctypes
import os
import sys
import time
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.interpreter import load_delegate
from PIL import Image
from PIL import ImageOps

COMPILED = b"edgetpu-custom-op"  # the one operation that the compiler leaves


def open_file(path, library):
    """Returns an interpreter of a file, on the Edge TPU if it is compiled."""
    with open(path, "rb") as file:
        compiled = COMPILED in file.read()
    if not compiled:
        print(f"{path}: on the CPU", file=sys.stderr)
        return Interpreter(path, num_threads=os.cpu_count())
    try:
        ctypes.CDLL(library)  # LiteRT's own complaint is a long one
        delegate = load_delegate(library)
    except (OSError, ValueError) as error:
        reason = str(error) or "no device answers"
        return fall_back(path, f"no Edge TPU ({library}: {reason})")
    print(f"{path}: on the Edge TPU", file=sys.stderr)
    return Interpreter(path, experimental_delegates=[delegate])


def fall_back(path, why):
    """Opens the file that a compiled one was made from."""
    original = path.replace("_edgetpu.tflite", ".tflite")
    if original == path or not os.path.exists(original):
        sys.exit(
            f"{path}: {why}, and a compiled file runs nowhere else. For the "
            f"CPU put the file it was compiled from beside it: {original}"
        )
    print(f"{path}: {why}; {original} instead, on the CPU", file=sys.stderr)
    return Interpreter(original, num_threads=os.cpu_count())


def read_picture(path, height, width):
    """Returns the centre of a picture, upright and RGB, as uint8."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    scale = max(width / picture.width, height / picture.height)
    size = (
        max(width, round(picture.width * scale)),
        max(height, round(picture.height * scale)),
    )
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.array(picture.crop((left, top, left + width, top + height)))


def read_labels(path):
    """Returns the labels that a file carries, or nothing."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        texts = [name for name in archive.namelist() if name.endswith(".txt")]
        return archive.read(texts[0]).decode().splitlines() if texts else []


def main():
    """Runs the files and prints the best classes."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("picture")
    parser.add_argument("files", nargs="+", help="one file, or its parts")
    parser.add_argument("--library", default="libedgetpu.so.1")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10, help="to be timed")
    options = parser.parse_args()
    for path in (options.picture, *options.files):
        if not os.path.exists(path):
            parser.error(f"there is no file {path}")

    interpreters = [open_file(path, options.library) for path in options.files]
    parts = [each.get_signature_runner() for each in interpreters]
    (picture_input,) = parts[0].get_input_details().values()
    if picture_input["dtype"] is not np.uint8:
        parser.error(
            f"{options.files[0]} takes {picture_input['dtype'].__name__}; "
            'convert with target="edgetpu", which gives uint8'
        )
    _, height, width, _ = picture_input["shape"]
    picture = read_picture(options.picture, height, width)[np.newaxis]

    times = []
    for _ in range(1 + options.runs):  # the first one fills the caches
        start = time.perf_counter()
        known = {name: picture for name in parts[0].get_input_details()}
        for part in parts:
            known |= part(
                **{name: known[name] for name in part.get_input_details()}
            )
        times.append(time.perf_counter() - start)
    name, details = next(iter(parts[-1].get_output_details().items()))
    scale, zero_point = details["quantization"]
    scores = (known[name][0].astype("float32") - zero_point) * scale
    labels = read_labels(options.files[-1]) or range(len(scores))
    for index in scores.argsort(kind="stable")[::-1][: options.top]:
        print(f"{scores[index]:.4f}  {labels[index]}")
    print(f"{1000 * np.median(times[1:]):.1f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
