"""From a Keras model to a TFLite file that keeps what was promised."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_mobilevit import files
from keras_mobilevit import quantization
from keras_mobilevit import reports
from keras_mobilevit.tflite import metadata as tflite_metadata
from keras_mobilevit.tflite import rewrites
from keras_mobilevit.tflite import writers
from keras_mobilevit.tflite.budget import Budget
from keras_mobilevit.tflite.budget import check_budget
from keras_mobilevit.tflite.budget import write_within
from keras_mobilevit.tflite.card import write_card
from keras_mobilevit.tflite.export import export
from keras_mobilevit.tflite.inspect import inspect
from keras_mobilevit.tflite.promises import INTEGER
from keras_mobilevit.tflite.promises import SIMPLIFIED
from keras_mobilevit.tflite.promises import TRAINED
from keras_mobilevit.tflite.promises import check_promises
from keras_mobilevit.tflite.sources import in_float32
from keras_mobilevit.tflite.sources import load_model
from keras_mobilevit.tflite.sources import on_the_map
from keras_mobilevit.tflite.sources import pixel_scale
from keras_mobilevit.tflite.sources import with_static_input
from keras_mobilevit.tflite.split import maps_wholly
from keras_mobilevit.tflite.split import part_paths
from keras_mobilevit.tflite.split import split as split_file
from keras_mobilevit.tflite.targets import PRECISIONS
from keras_mobilevit.tflite.targets import TARGETS

INPUT_DTYPES = ("uint8", "int8", "float32")


@dataclasses.dataclass(frozen=True)
class Conversion(reports.Report):
    """What `convert` wrote.

    Attributes:
        path: the file.
        target: the device it is meant for.
        precision: one of `PRECISIONS`.
        input_dtype: type of the file's input and output.
        input_shape: shape of the input, batch 1.
        size: bytes.
        ops: operations in the file.
        float_ops: how many of them compute in floating point.
        max_rank: the most axes that a tensor has.
        min_runtime: the oldest TFLite runtime that runs the file.
        seconds: how long the conversion took.
        parts: with `split`, the files of the part that maps and of the rest;
            `()` if all of it maps.
        budget: with `max_drop`, which layers stay in float, and their cost.
    """

    path: str
    target: str
    precision: str
    input_dtype: str
    input_shape: tuple[int, ...]
    size: int
    ops: int
    float_ops: int
    max_rank: int
    min_runtime: str
    seconds: float
    parts: tuple[str, ...] = ()
    budget: Budget | None = None

    def __str__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        written = reports.table(
            ("file", "precision", "input", "MB", "ops", "float ops", "runtime"),
            [
                (
                    self.path,
                    self.precision,
                    f"{self.input_dtype} {shape}",
                    f"{self.size / 1e6:.2f}",
                    self.ops,
                    self.float_ops,
                    self.min_runtime,
                )
            ],
        )
        if self.parts:
            first, rest = self.parts
            written += (
                f"\n\nIts first part, which the {self.target} is predicted to "
                f"run: {first}\nThe rest, for the CPU: {rest}"
            )
        return f"{written}\n\n{self.budget}" if self.budget else written


def convert(
    model: keras.Model | str | os.PathLike,
    path: str | os.PathLike,
    *,
    target: str = "cpu",
    precision: str | None = None,
    calibration_data: Any = None,
    equalize: bool = True,
    refine: bool = True,
    input_dtype: str | None = None,
    input_shape: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    validation_data: Any = None,
    split: bool = False,
    model_card: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Writes a Keras model as a TFLite file, then reads it back and checks it.

    Args:
        model: a Keras model with one picture as input, or the path of a
            `.keras` file. One of `quantization.quantize_model` brings its
            ranges with it.
        path: the `.tflite` file to write.
        target: `"cpu"`, `"gpu"` or `"edgetpu"`.
        precision: `None` for the target's best, or

            - `"float32"`: exact.
            - `"float16"`: weights in half precision.
            - `"dynamic_int8"`: int8 weights, activations rounded as the file
              runs, with a range for each picture.
            - `"int8"`: every operation in integers.
            - `"int16x8"`: int8 weights, int16 activations: exact, and slow
              where there are no fast kernels for it, as on x86.
            - `"int8_mixed"`: convolutions, SiLU and products of activations
              in int8, softmax and normalizations in float: the fastest on a
              CPU.
        calibration_data: for integer precisions of a float model: some
            hundred typical pictures as the model takes them; an array `(n,
            height, width, channels)`, or a `tf.data.Dataset` or another
            iterable of batches, with or without labels. `"dynamic_int8"`
            needs none, but is equalised with them.
        equalize: whether integer precisions start from the equalised model
            (`keras_mobilevit.quantization.equalize`), which computes the same
            and loses less.
        refine: whether an integer file made from a float model gets, measured
            on `calibration_data`, ranges narrowed where that lowers the error
            (8 bits only), and biases that restore the means which rounding
            has shifted.
        input_dtype: type of the input and of the outputs. `None` for
            `"uint8"` with int8 activations and `"float32"` otherwise, which
            then is the only choice.
        input_shape: `(height, width)` for a model that takes any size, or
            for another size than the model's own.
        labels: the names of the classes, stored in the file.
        metadata: what the file's TFLite metadata say besides the types and
            the scaling of its pixels: texts for some of `"name"` (that of the
            model by default), `"description"`, `"version"`, `"author"` and
            `"license"`.
        max_drop: for a classifier in `"int8"` or `"int8_mixed"`: how many
            points (0..100) of top-1 the file may lose against the float
            model. The fewest layers that this asks for stay in float; which,
            and what they cost in size and time, is in the result.
        min_sqnr: the same for any model with one output: the signal to noise
            that it shall have at least against the float model, in dB.
        validation_data: what `max_drop` is measured on, as of `evaluate`; an
            array of pictures alone if there are no labels: then what counts
            is how many keep the class that the float model gives them. For
            `min_sqnr` labels do not matter.
        split: for `target="edgetpu"`: whether to write, besides `path`, the
            part of the file that is predicted to map and the rest, which
            follow one another to the same outputs: `name_first.tflite` and
            `name_rest.tflite` beside `path`. If all of it maps, it stays
            whole.
        model_card: a Markdown file to write too: what the file is, how it
            was made, its accuracy on `validation_data` with labels, its time
            against float32, and what each target runs of it.
        overwrite: whether `path` may be replaced.

    Returns:
        What was written.

    Raises:
        ValueError: an argument is wrong; the message names it.
        FileExistsError: `path` exists and `overwrite` is `False`.
        ConversionError: TensorFlow's converter refuses the model, or the file
            does not keep what its precision promises; nothing is written.
        BudgetError: no choice of layers keeps `max_drop` or `min_sqnr`;
            nothing is written.
    """
    started = time.perf_counter()
    target, precision, input_dtype = _resolve(target, precision, input_dtype)
    if split and target != "edgetpu":
        raise ValueError(
            '`split=True` is for `target="edgetpu"`, which runs one part of a '
            f"graph. Received: target={target!r}"
        )
    is_budgeted = max_drop is not None or min_sqnr is not None
    if is_budgeted or model_card is None:
        check_budget(max_drop, min_sqnr, validation_data, precision)
    texts = tflite_metadata.check_texts(metadata)
    parts = part_paths(path) if split else ()
    for file in (path, *parts, *([] if model_card is None else [model_card])):
        files.check_writable(file, overwrite)
    model = in_float32(load_model(model))
    model = with_static_input(model, input_shape)
    if target == "edgetpu":
        model = on_the_map(model)
    shape = (1, *model.inputs[0].shape[1:])
    for name, value in (("labels", labels), ("max_drop", max_drop)):
        shapes = [tuple(output.shape) for output in model.outputs]
        is_classifier = len(shapes) == 1 and len(shapes[0]) == 2
        # Of one score no class is the best.
        least = 2 if name == "max_drop" else 1
        if value is not None and not (is_classifier and shapes[0][1] >= least):
            raise ValueError(
                f"`{name}` is for classifiers with a score for each class, "
                f"but the model has outputs of shape {shapes}"
                f"{'; `min_sqnr` is for any' if least == 2 else ''}. "
                f"Received: {name}={value!r}"
            )
    if min_sqnr is not None and len(model.outputs) != 1:
        raise ValueError(
            "`min_sqnr` is for models with one output. Received: "
            f"min_sqnr={min_sqnr!r} and {len(model.outputs)} outputs"
        )
    if labels is not None:
        classes = model.outputs[0].shape[-1]
        labels = tflite_metadata.check_labels(labels, classes)
    pictures, reference, rounding = None, model, None
    if quantization.is_quantized(model):
        if precision not in TRAINED:
            raise ValueError(
                "A quantization-aware `model` is written with `precision` "
                f"{' or '.join(map(repr, TRAINED))}; for another pass "
                "`quantization.strip(model)`. Received: "
                f"precision={precision!r}"
            )
        reference, rounding = quantization.strip(model), model
        model = quantization.bake(model)
    elif precision in INTEGER or (
        precision == "dynamic_int8" and calibration_data is not None
    ):
        pictures = quantization.model_pictures(model, calibration_data)
        if equalize:
            model, _ = quantization.equalize(model, pictures)
    scale = pixel_scale(reference, pictures)
    description = tflite_metadata.Description(
        **{
            "name": reference.name,
            "description": f"{precision}, written by keras_mobilevit",
            **texts,
        },
        mean=(0.0,) if scale else (),
        std=(scale,) if scale else (),
    )

    def describe(data):
        return tflite_metadata.describe(data, description, labels)

    if rounding is None and precision in SIMPLIFIED:
        model = rewrites.simplify(
            model,
            # Integer weights: equalisation has decided what they absorb.
            absorb_norms=precision not in INTEGER,
            # Most weights of a stem, divided by 255, are no normal float16.
            fold_rescaling=precision != "float16",
        )

    def rank(seen):
        rounding_model = rounding or quantization.quantize_model(
            model, pictures, equalize=False, refine=False
        )
        return quantization.sensitivity(rounding_model, seen, precision)

    budget = None
    with tempfile.TemporaryDirectory() as folder:
        saved_model = Path(folder) / "saved_model"
        export(model, saved_model, shape)
        if precision in INTEGER:
            writer = writers.IntegerWriter(
                saved_model,
                pictures,
                input_dtype,
                precision,
                refine and pictures is not None,
                refused=TARGETS[target].refused,
                dense_as_conv=target == "edgetpu",
                finish=describe,
            )
            if is_budgeted:
                data, budget = write_within(
                    *(max_drop, min_sqnr, writer, reference, rank),
                    validation_data,
                )
            else:
                data = writer.write()
        else:
            data = describe(writers.floating(saved_model, precision))
    with files.atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(data)
        inspection = inspect(temporary)
        is_whole = budget is None or not budget.kept
        check_promises(inspection, precision, input_dtype, is_whole)
        if parts and maps_wholly(inspection):
            parts = ()
        if parts:
            split_file(temporary, *parts, overwrite=overwrite)
    result = Conversion(
        path=str(path),
        target=target,
        precision=precision,
        input_dtype=input_dtype,
        input_shape=shape,
        size=len(data),
        ops=len(inspection.ops),
        float_ops=sum(inspection.float_ops.values()),
        max_rank=inspection.max_rank,
        min_runtime=inspection.min_runtime,
        seconds=round(time.perf_counter() - started, 1),
        parts=tuple(map(str, parts)),
        budget=budget,
    )
    if model_card is not None:
        facts = {
            "precision": precision,
            "meant for": TARGETS[target].description,
            "quantization": _history(rounding, pictures, equalize, refine),
        }
        if budget is not None:
            facts["layers kept in float"] = len(budget.kept)
        with tempfile.TemporaryDirectory() as folder:
            exact = path
            if precision != "float32":
                exact = Path(folder) / "float32.tflite"
                convert(reference, exact, precision="float32")
            write_card(
                *(model_card, path, exact, facts, validation_data),
                overwrite=overwrite,
            )
    return result


def _history(rounding, pictures, equalize, refine):
    """Says how a file came to be quantized."""
    if rounding is not None:
        return "trained to round (quantization-aware)"
    if pictures is None:
        return "without calibration"
    extras = (("equalised", equalize), ("refined", refine))
    done = "".join(f", {name}" for name, is_done in extras if is_done)
    return f"after training, on {len(pictures)} pictures{done}"


def _resolve(target, precision, input_dtype):
    if target not in TARGETS:
        raise ValueError(
            f"`target` must be one of {tuple(TARGETS)}. "
            f"Received: target={target!r}"
        )
    row = TARGETS[target]
    precision = row.precision if precision is None else precision
    if precision not in PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {PRECISIONS}. "
            f"Received: precision={precision!r}"
        )
    if precision not in row.precisions:
        raise ValueError(
            f"`target={target!r}`, {row.description}, takes `precision` "
            f"{' or '.join(map(repr, row.precisions))}. "
            f"Received: precision={precision!r}"
        )
    allowed = INPUT_DTYPES if precision in TRAINED else ("float32",)
    input_dtype = allowed[0] if input_dtype is None else input_dtype
    if input_dtype not in allowed:
        raise ValueError(
            f"`input_dtype` must be one of {allowed} with "
            f"precision={precision!r}. Received: input_dtype={input_dtype!r}"
        )
    return target, precision, input_dtype
