"""The command `keras-mobilevit`: flags in, library calls, text or JSON out."""

import dataclasses
import os
import sys
import textwrap
import warnings
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_mobilevit import cli_flags
from keras_mobilevit.cli_demo import serve_demo
from keras_mobilevit.cli_inputs import UsageError
from keras_mobilevit.cli_inputs import check_classes
from keras_mobilevit.cli_inputs import labels_beside
from keras_mobilevit.cli_inputs import load_data
from keras_mobilevit.cli_inputs import load_model
from keras_mobilevit.cli_inputs import read_labels
from keras_mobilevit.cli_inputs import side
from keras_mobilevit.version import __version__

_HELP = {"-h", "-help", "--help"}
_INTERRUPTED = 130  # as shells count it

_DEFINE = {
    bool: flags.DEFINE_bool,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    list: flags.DEFINE_multi_integer,
    str: flags.DEFINE_string,
}


def _train(values, arguments):
    """Trains a classifier: best.keras, last.keras, labels.txt and curves."""
    _expect(arguments, 0, "no arguments, only flags")
    import keras

    import keras_mobilevit
    from keras_mobilevit import training

    families = ("MobileViT_", "MobileViTV2_")
    builders = [n for n in keras_mobilevit.__all__ if n.startswith(families)]
    if values.model not in builders:
        raise UsageError(
            f"--model must be one of {builders}. Received: {values.model!r}"
        )
    recipe = training.Recipe(
        epochs=values.epochs,
        learning_rate=values.learning_rate,
        label_smoothing=values.label_smoothing,
        weight_decay=values.weight_decay,
        freeze_epochs=values.freeze_epochs,
    )
    keras.utils.set_random_seed(values.seed)
    dataset = load_data(values, values.image_size)
    backbone = getattr(keras_mobilevit, values.model)(
        include_top=False,
        weights=None if values.weights == "none" else values.weights,
        input_shape=(values.image_size, values.image_size, 3),
        pooling="avg",
    )
    x = keras.layers.Dropout(0.1, name="top_dropout")(backbone.output)
    x = keras.layers.Dense(
        len(dataset.class_names), activation="softmax", name="predictions"
    )(x)
    return training.train(
        keras.Model(backbone.input, x, name=backbone.name),
        dataset,
        recipe,
        values.output_dir,
        resume=values.resume,
        overwrite=values.overwrite,
        verbose=0 if values.json else "auto",
    )


def _quantize(values, arguments):
    """Makes an int8 file by calibration and one by training; keeps the best."""
    (source,) = _expect(arguments, 1, "MODEL.keras")
    import keras

    from keras_mobilevit import training
    from keras_mobilevit.training import quantized

    given = {
        name: values[name].value
        for name in ("epochs", "learning_rate")
        if values[name].value is not None
    }
    recipe = dataclasses.replace(quantized.RECIPE, **given)
    model, shape = load_model(source)
    keras.utils.set_random_seed(values.seed)
    dataset = load_data(values, side(source, shape))
    check_classes(source, labels_beside(source), dataset)
    return training.train_quantized(
        model,
        dataset,
        recipe,
        values.output_dir,
        precision=values.precision,
        distill=values.distill,
        freeze_batch_norm=values.freeze_batch_norm,
        resume=values.resume,
        overwrite=values.overwrite,
        verbose=0 if values.json else "auto",
    )


def _convert(values, arguments):
    """Writes a TFLite file. Integer precisions look at the pictures."""
    source, path = _expect(arguments, 2, "MODEL.keras FILE.tflite")
    from keras_mobilevit import files
    from keras_mobilevit import tflite

    if values.labels is None:
        labels = labels_beside(source)
    else:
        labels = read_labels(values.labels)
    if values.sizes is not None:
        return _convert_sizes(values, source, path, labels)
    files.check_writable(path, values.overwrite)
    model, shape = load_model(source)
    size = values.image_size
    size = None if size is None else (size, size)
    pictures, validation = None, None
    if values.dataset or values.data_dir:
        shape = (*size, 3) if size else shape
        dataset = load_data(values, side(source, shape))
        pictures = dataset.calibration
        wanted = (values.max_drop, values.min_sqnr, values.model_card)
        if any(value is not None for value in wanted):
            check_classes(source, labels, dataset)
            validation = dataset.val
    return tflite.convert(
        model,
        path,
        target=values.target,
        precision=values.precision,
        calibration_data=pictures,
        input_dtype=values.input_dtype,
        input_shape=size,
        labels=labels,
        max_drop=values.max_drop,
        min_sqnr=values.min_sqnr,
        validation_data=validation,
        split=values.split,
        model_card=values.model_card,
        overwrite=values.overwrite,
    )


def _convert_sizes(values, source, path, labels):
    from keras_mobilevit import tflite

    unfit = ("image_size", "max_drop", "min_sqnr", "split", "model_card")
    unfit = [name for name in unfit if getattr(values, name)]
    sizes = values.sizes.split(",")
    if unfit or not all(size.strip().isdigit() for size in sizes):
        raise UsageError(
            "--sizes takes sides in pixels with commas between, such as "
            "160,192,224, without --image_size, --max_drop, --min_sqnr, "
            "--split and --model_card. "
            f"Received: --sizes {values.sizes}{' --'.join(['', *unfit])}"
        )

    def pictures(height, _):
        dataset = load_data(values, height)
        check_classes(source, labels, dataset)
        return dataset.calibration, dataset.val

    return tflite.convert_sizes(
        source,
        path,
        [int(size) for size in sizes],
        pictures if values.dataset or values.data_dir else None,
        target=values.target,
        precision=values.precision,
        input_dtype=values.input_dtype,
        labels=labels,
        progress=not values.json,
        overwrite=values.overwrite,
    )


def _inspect(values, arguments):
    """Shows what is in a file, or what of it a --target runs."""
    (path,) = _expect(arguments, 1, "FILE.tflite")
    from keras_mobilevit import tflite

    found = tflite.inspect(path)
    return found if values.target is None else found.check(values.target)


def _evaluate(values, arguments):
    """Measures the accuracy of a file on the validation pictures."""
    (path,) = _expect(arguments, 1, "FILE.tflite")
    from keras_mobilevit import tflite
    from keras_mobilevit.tflite.interpreter import Runner

    shape = Runner(path, values.threads).input_shape
    dataset = load_data(values, side(path, shape))
    check_classes(path, tflite.inspect(path).labels, dataset)
    return tflite.evaluate(
        path, dataset.val, values.threads, progress=not values.json
    )


def _benchmark(values, arguments):
    """Compares the speed, size and memory of files on this machine's CPU."""
    if not arguments:
        raise UsageError("benchmark takes FILE.tflite [FILE.tflite ...]")
    from keras_mobilevit import files
    from keras_mobilevit import tflite

    if values.plot:
        files.check_writable(values.plot, values.overwrite)
    report = tflite.benchmark(
        arguments,
        values.threads,
        values.runs,
        progress=not values.json,
        profile=values.profile,
    )
    if values.plot:
        report.plot(values.plot, overwrite=values.overwrite)
    return report


def _predict(values, arguments):
    """Names the classes of pictures, best first, with their scores."""
    if len(arguments) < 2:
        raise UsageError("predict takes FILE.tflite PICTURE [PICTURE ...]")
    from keras_mobilevit import tflite

    return tflite.predict(arguments[0], arguments[1:], top=values.top)


# Of each an example, its flags, and what runs.
COMMANDS: dict[str, tuple[str, dict, Callable]] = {
    "train": ("--data_dir pictures --output_dir run", cli_flags.TRAIN, _train),
    "quantize": (
        "run/best.keras --data_dir pictures",
        cli_flags.QUANTIZE,
        _quantize,
    ),
    "convert": (
        "run/best.keras model.tflite --data_dir pictures",
        cli_flags.CONVERT,
        _convert,
    ),
    "inspect": ("model.tflite --target edgetpu", cli_flags.INSPECT, _inspect),
    "evaluate": (
        "model.tflite --data_dir pictures",
        cli_flags.EVALUATE,
        _evaluate,
    ),
    "benchmark": (
        "a.tflite b.tflite --plot times.png",
        cli_flags.BENCHMARK,
        _benchmark,
    ),
    "predict": ("model.tflite picture.jpg", cli_flags.PREDICT, _predict),
    "serve_demo": ("model.tflite", cli_flags.SERVE_DEMO, serve_demo),
}


def _program_help():
    lines = ["MobileViT from training to a measured TFLite file", ""]
    for name, (example, _, _) in COMMANDS.items():
        lines.append(f"  keras-mobilevit {name:10} {example}")
    lines += ["", "`keras-mobilevit COMMAND --help` explains a command."]
    return "\n".join(lines)


def _command_help(name):
    example, known, run = COMMANDS[name]
    lines = [run.__doc__, "", f"  keras-mobilevit {name} {example}", ""]
    for flag, (default, text) in known.items():
        if not isinstance(default, (bool, type)):
            text = f"{text} [{default}]"
        first, *rest = textwrap.wrap(text, 57, break_on_hyphens=False)
        lines += [f"  --{flag:18} {first}", *(" " * 23 + line for line in rest)]
    return "\n".join(lines) + "\n  --help               show this"


def _parse(name, argv):
    """Returns the values of the flags, and the arguments."""
    values = flags.FlagValues()
    for flag, (default, text) in COMMANDS[name][1].items():
        if isinstance(default, type):
            _DEFINE[default](flag, None, text, flag_values=values)
        else:
            _DEFINE[type(default)](flag, default, text, flag_values=values)
    arguments = values([name, *argv])[1:]
    for flag in values:
        # As from an unset variable of a shell; it would be the folder ".".
        if values[flag].value == "":
            raise UsageError(f"--{flag} must not be empty. Received: ''")
    return values, arguments


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
    sys.stdout.flush()


def _complain(message):
    print(f"keras-mobilevit{message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command and its flags; `None` for those of the process.

    Returns:
        0; 1 after an error and 130 after Ctrl-C, which are printed as one
        message.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in {"help", *_HELP}:
        print(_program_help())
        return 0
    name, *rest = argv
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        _complain(
            f": no such command. Received: {name!r}. It is one of {known}"
        )
        return 1
    if not _HELP.isdisjoint(rest):
        print(_command_help(name))
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with warnings.catch_warnings():
            # Without the line of code that they come from.
            warnings.showwarning = lambda message, *_: _complain(
                f" {name}: warning: {message}"
            )
            values, arguments = _parse(name, rest)
            report = COMMANDS[name][2](values, arguments)
            if report is not None:
                _show(report, values.json)
    except KeyboardInterrupt:
        hint = "; --resume goes on" if "resume" in COMMANDS[name][1] else ""
        _complain(f" {name}: interrupted{hint}")
        return _INTERRUPTED
    except BrokenPipeError:
        # Who reads has seen enough, as `head` does. The rest goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError, ImportError, flags.Error) as e:
        _complain(f" {name}: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
