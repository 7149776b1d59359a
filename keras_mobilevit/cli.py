"""The command `keras-mobilevit`: flags in, library calls, text or JSON out."""

import os
import re
import sys
import textwrap
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

USAGE = """keras-mobilevit: MobileViT from training to a measured TFLite file

  keras-mobilevit train      --data_dir pictures --output_dir run
  keras-mobilevit quantize   run/best.keras --data_dir pictures
  keras-mobilevit convert    run/best.keras model.tflite --data_dir pictures
  keras-mobilevit inspect    model.tflite
  keras-mobilevit evaluate   model.tflite --data_dir pictures
  keras-mobilevit benchmark  a.tflite b.tflite
  keras-mobilevit predict    model.tflite picture.jpg

`keras-mobilevit COMMAND --help` lists the flags of a command.
"""


class UsageError(ValueError):
    """The command line itself is wrong."""


def _data_flags(values, image_size=True):
    flags.DEFINE_string(
        "dataset",
        None,
        "'digits' (built in) or a name of tensorflow-datasets",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "folder with train/ and val/, or of class folders",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "download",
        False,
        "let tensorflow-datasets download",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size", 32, "pictures in a batch", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "seed", flag_values=values)
    if image_size:
        flags.DEFINE_integer(
            "image_size",
            256,
            "side of the pictures in pixels",
            flag_values=values,
        )


def _load_data(values, image_size):
    from keras_mobilevit import data

    return data.load(
        values.dataset,
        values.data_dir,
        image_size=image_size,
        batch_size=values.batch_size,
        seed=values.seed,
        download=values.download,
    )


def _train_flags(values):
    _data_flags(values)
    flags.DEFINE_string(
        "model", "MobileViT_XXS", "name of the builder", flag_values=values
    )
    flags.DEFINE_string(
        "weights",
        "none",
        "'none', 'imagenet' or a weights file",
        flag_values=values,
    )
    flags.DEFINE_integer("epochs", 20, "epochs", flag_values=values)
    flags.DEFINE_integer(
        "freeze_epochs",
        0,
        "epochs at the start in which only the classifier learns",
        flag_values=values,
    )
    flags.DEFINE_float(
        "learning_rate", 2e-3, "highest learning rate", flag_values=values
    )
    flags.DEFINE_float(
        "label_smoothing", 0.1, "label smoothing", flag_values=values
    )
    flags.DEFINE_float("weight_decay", 0.01, "of AdamW", flag_values=values)
    flags.DEFINE_string(
        "output_dir", "run", "folder for the results", flag_values=values
    )
    flags.DEFINE_bool(
        "resume", False, "go on with the run in it", flag_values=values
    )


def _train(values, arguments):
    _expect(arguments, 0, "no arguments, only flags")
    import keras

    import keras_mobilevit
    from keras_mobilevit import training

    builders = [
        name
        for name in keras_mobilevit.__all__
        if name.startswith("MobileViT_")
    ]
    if values.model not in builders:
        raise UsageError(
            f"--model must be one of {builders}. Received: {values.model!r}"
        )
    keras.utils.set_random_seed(values.seed)
    dataset = _load_data(values, values.image_size)
    size = (values.image_size, values.image_size, 3)
    backbone = getattr(keras_mobilevit, values.model)(
        include_top=False,
        weights=None if values.weights == "none" else values.weights,
        input_shape=size,
        pooling="avg",
    )
    x = keras.layers.Dropout(0.1, name="top_dropout")(backbone.output)
    x = keras.layers.Dense(
        len(dataset.class_names), activation="softmax", name="predictions"
    )(x)
    recipe = training.Recipe(
        epochs=values.epochs,
        learning_rate=values.learning_rate,
        label_smoothing=values.label_smoothing,
        weight_decay=values.weight_decay,
        freeze_epochs=values.freeze_epochs,
    )
    return training.train(
        keras.Model(backbone.input, x, name=backbone.name),
        dataset,
        recipe,
        values.output_dir,
        resume=values.resume,
        overwrite=values.overwrite,
        verbose=0 if values.json else "auto",
    )


def _convert_flags(values):
    _data_flags(values, image_size=False)
    flags.DEFINE_string(
        "target", "cpu", "cpu, gpu or edgetpu", flag_values=values
    )
    flags.DEFINE_string(
        "precision",
        None,
        "float32, float16, dynamic_int8, int16x8, int8_mixed or int8; by "
        "default what suits the target",
        flag_values=values,
    )
    flags.DEFINE_string(
        "input_dtype", None, "uint8, int8 or float32", flag_values=values
    )
    flags.DEFINE_string(
        "labels",
        None,
        "text file, a class a line; by default labels.txt beside the model",
        flag_values=values,
    )


def _convert(values, arguments):
    source, path = _expect(arguments, 2, "MODEL.keras FILE.tflite")
    from keras_mobilevit import files
    from keras_mobilevit import tflite

    files.check_writable(path, values.overwrite)
    model = tflite.load_model(source)
    labels = values.labels
    if labels is None and (Path(source).parent / "labels.txt").is_file():
        labels = Path(source).parent / "labels.txt"
    if labels is not None:
        labels = Path(labels).read_text(encoding="utf-8").splitlines()
    pictures = None
    if values.dataset or values.data_dir:
        size = model.input_shape[1]
        pictures = _load_data(values, size).calibration
    return tflite.convert(
        model,
        path,
        target=values.target,
        precision=values.precision,
        calibration_data=pictures,
        input_dtype=values.input_dtype,
        labels=labels,
        overwrite=values.overwrite,
    )


def _quantize_flags(values):
    from keras_mobilevit.training import quantized

    _data_flags(values, image_size=False)
    recipe = quantized.RECIPE
    flags.DEFINE_integer("epochs", recipe.epochs, "epochs", flag_values=values)
    flags.DEFINE_float(
        "learning_rate",
        recipe.learning_rate,
        "highest learning rate",
        flag_values=values,
    )
    flags.DEFINE_string(
        "precision", "int8", "int8 or int8_mixed", flag_values=values
    )
    flags.DEFINE_bool(
        "freeze_batch_norm",
        False,
        "keep the batch statistics as they are",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output_dir", "quantized", "folder for the results", flag_values=values
    )
    flags.DEFINE_bool(
        "resume", False, "go on with the run in it", flag_values=values
    )


def _quantize(values, arguments):
    (source,) = _expect(arguments, 1, "MODEL.keras")
    import dataclasses

    import keras

    from keras_mobilevit import tflite
    from keras_mobilevit import training
    from keras_mobilevit.training import quantized

    model = tflite.load_model(source)
    keras.utils.set_random_seed(values.seed)
    return training.train_quantized(
        model,
        _load_data(values, model.input_shape[1]),
        dataclasses.replace(
            quantized.RECIPE,
            epochs=values.epochs,
            learning_rate=values.learning_rate,
        ),
        values.output_dir,
        precision=values.precision,
        freeze_batch_norm=values.freeze_batch_norm,
        resume=values.resume,
        overwrite=values.overwrite,
        verbose=0 if values.json else "auto",
    )


def _inspect(values, arguments):
    (path,) = _expect(arguments, 1, "FILE.tflite")
    from keras_mobilevit import tflite

    return tflite.inspect(path)


def _evaluate_flags(values):
    _data_flags(values, image_size=False)
    flags.DEFINE_integer("threads", None, "CPU threads", flag_values=values)


def _evaluate(values, arguments):
    (path,) = _expect(arguments, 1, "FILE.tflite")
    from keras_mobilevit import tflite

    size = tflite.inspect(path).inputs[0].shape[1]
    return tflite.evaluate(
        path,
        _load_data(values, size).val,
        num_threads=values.threads,
        progress=not values.json,
    )


def _benchmark_flags(values):
    flags.DEFINE_multi_integer(
        "threads", None, "CPU threads; may be repeated", flag_values=values
    )
    flags.DEFINE_integer("runs", 50, "runs of each file", flag_values=values)
    flags.DEFINE_string("plot", None, "picture to draw", flag_values=values)


def _benchmark(values, arguments):
    if not arguments:
        raise UsageError("benchmark takes FILE.tflite [FILE.tflite ...]")
    from keras_mobilevit import tflite

    report = tflite.benchmark(
        arguments,
        threads=values.threads,
        runs=values.runs,
        progress=not values.json,
    )
    if values.plot:
        report.plot(values.plot, overwrite=values.overwrite)
    return report


def _predict_flags(values):
    flags.DEFINE_integer("top", 5, "classes to print", flag_values=values)


def _predict(values, arguments):
    if len(arguments) < 2:
        raise UsageError("predict takes FILE.tflite PICTURE [PICTURE ...]")
    from keras_mobilevit import tflite

    return tflite.predict(arguments[0], arguments[1:], top=values.top)


def _no_flags(values):
    pass


COMMANDS: dict[str, tuple[Callable, Callable]] = {
    "train": (_train_flags, _train),
    "convert": (_convert_flags, _convert),
    "quantize": (_quantize_flags, _quantize),
    "inspect": (_no_flags, _inspect),
    "evaluate": (_evaluate_flags, _evaluate),
    "benchmark": (_benchmark_flags, _benchmark),
    "predict": (_predict_flags, _predict),
}


def _help(name, values):
    (usage,) = (
        line.strip()
        for line in USAGE.splitlines()
        if line.startswith(f"  keras-mobilevit {name} ")
    )
    lines = [re.sub(" +", " ", usage), ""]
    for flag in values.get_flags_for_module(__name__):
        default = "" if flag.default is None else f" [{flag.default}]"
        first = f"  --{flag.name:18} "
        rest = " " * len(first)
        lines += textwrap.wrap(
            f"{flag.help}{default}",
            80,
            initial_indent=first,
            subsequent_indent=rest,
        )
    return "\n".join(lines)


def _expect(arguments, count, wanted):
    if len(arguments) != count:
        raise UsageError(f"The command takes {wanted}. Received: {arguments}")
    return arguments


def _show(report: Any, as_json: bool) -> None:
    many = isinstance(report, tuple)
    if not as_json:
        print("\n\n".join(map(str, report)) if many else report)
    elif many:
        print("[" + ",\n".join(item.to_json() for item in report) + "]")
    else:
        print(report.to_json())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command and its flags; `None` for those of the process.

    Returns:
        0, or 1 after an error, which is printed as one message.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("help", "--help", "-h"):
        print(USAGE)
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        print(
            f"keras-mobilevit: no such command. Received: {name!r}. It is one "
            f"of {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        return 1
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    define, run = COMMANDS[name]
    values = flags.FlagValues()
    define(values)
    flags.DEFINE_bool("json", False, "print JSON", flag_values=values)
    flags.DEFINE_bool(
        "overwrite", False, "replace existing files", flag_values=values
    )
    flags.DEFINE_bool("help", False, "show this", flag_values=values)
    try:
        arguments = values([name, *rest])[1:]
        if values.help:
            print(_help(name, values))
            return 0
        _show(run(values, arguments), values.json)
    except (ValueError, OSError, RuntimeError, flags.Error) as error:
        print(f"keras-mobilevit {name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
