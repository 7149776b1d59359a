r"""Times this package's files against other implementations and networks.

MobileViT and MobileViTv2 of keras_cv_attention_models, timm (through
litert-torch and ONNX Runtime) and transformers; MobileNetV2, MobileNetV3 and
EfficientNetV2 of keras.applications; DeiT and PiT of timm. Network after
network, all files of one take turns in one process, each in the precisions
that its exporter has; so caches hold what they would on a device.

    sh examples/peers/make.sh environments
    python examples/benchmark_peers.py --environments environments \
        --files peer_files --json peers.json --plot peers.png

Every weight is random, since a zero or a one would be folded away; accuracies
are the published ones. What an environment or an exporter does not give is
listed as missing, with the reason. Making the environments takes ten minutes
and 6 GB, writing the files an hour or two, timing ten minutes on two cores;
files that exist are kept. Milliseconds hold for this processor alone.
"""

import functools
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from absl import app
from absl import flags
from absl import logging
from peers.cards import CARDS
from peers.comparison import OURS
from peers.comparison import PEAK
from peers.comparison import Comparison
from peers.comparison import Row
from peers.exporting import pictures
from peers.exporting import random_weight

import keras_mobilevit
from keras_mobilevit import files
from keras_mobilevit import tflite
from keras_mobilevit.layers import ConvNormAct
from keras_mobilevit.tflite.benchmark import load
from keras_mobilevit.tflite.benchmark import take_turns_anew
from keras_mobilevit.tflite.benchmark import timing
from keras_mobilevit.tflite.memory import resident_memory

FLAGS = flags.FLAGS
flags.DEFINE_string("files", "peer_files", "folder of all files")
flags.DEFINE_string("environments", None, "what make.sh made; none: only ours")
flags.DEFINE_multi_string("only", [], "names of files must hold one of these")
flags.DEFINE_bool("write", True, "write the files that are not there yet")
flags.DEFINE_bool("measure", True, "time the files, not only write them")
flags.DEFINE_multi_integer("threads", [1, 2], "numbers of CPU threads")
flags.DEFINE_integer("repeats", 3, "how often files are loaded anew")
flags.DEFINE_integer("runs", 50, "rounds to time after each loading")
flags.DEFINE_float(
    "seconds", None, "stop timing a network then, after each loading"
)
flags.DEFINE_string("json", None, "file for the result")
flags.DEFINE_string("plot", None, "PNG file for the result")
flags.DEFINE_string("markdown", None, "page to write the table into")

#: How our files are converted.
OPTIONS = {
    "float32": {"precision": "float32"},
    "float16": {"precision": "float16"},
    "int8_mixed": {"precision": "int8_mixed"},
    # What no gate costs: random weights ask for all of them.
    "int8_mixed_ungated": {"precision": "int8_mixed", "equalize": False},
    "int8": {"precision": "int8"},
    "int8_edgetpu": {"target": "edgetpu"},
}
#: Layers, side of the map and channels of the file that shows the peak.
PEAK_SHAPE = (4, 32, 512)
_ONNX_RUN = """
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
(image,) = session.get_inputs()
session.run(None, {image.name: numpy.zeros(image.shape, "float32")})
"""


def main(argv):
    """Writes the files, times them and reports."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    folder = Path(FLAGS.files)
    folder.mkdir(parents=True, exist_ok=True)
    missing = write_files(folder) if FLAGS.write else {}
    for reason in sorted(folder.glob("*.missing")):
        if wanted(reason.stem):
            missing[reason.stem] = reason.read_text()
    if not FLAGS.measure:
        return
    result = measure(folder, missing)
    print(result)
    if FLAGS.json:
        with files.atomic_path(FLAGS.json, True) as temporary:
            temporary.write_text(result.to_json())
    if FLAGS.plot:
        result.plot(FLAGS.plot, True)
    if FLAGS.markdown:
        result.write_into(FLAGS.markdown)


def write_files(folder: Path) -> dict[str, str]:
    """Writes what is not there; returns the environments that are missing."""
    for name, write in own_files().items():
        if wanted(name) and not (folder / name).exists():
            write(folder / name)
            print(name, flush=True)
    if FLAGS.environments is None:
        return {}
    return export(Path(FLAGS.environments), folder)


def wanted(name: str) -> bool:
    """Whether a file takes part."""
    return not FLAGS.only or any(word in name for word in FLAGS.only)


def own_files() -> dict[str, Callable[[Path], None]]:
    """Returns `{name: write}` of this package's files."""
    found = {
        f"{PEAK}.{OURS}.{precision}.tflite": functools.partial(
            write, peak_model, precision
        )
        for precision in ("float32", "int8")
    }
    for name, card in CARDS.items():
        for precision in OPTIONS if card.builder else ():
            found[f"{name}.{OURS}.{precision}.tflite"] = functools.partial(
                write, functools.partial(own_model, card.builder), precision
            )
    return found


def write(build: Callable[[], keras.Model], precision: str, path: Path) -> None:
    """Converts a model with random weights."""
    model = build()
    data = None
    if precision.startswith("int8"):
        data = pictures(*model.input_shape[2:0:-1][:1])
        if model.input_shape[3] != 3:
            data = np.repeat(data[..., :1], model.input_shape[3], -1)
    with warnings.catch_warnings():
        # Of few pictures that are all alike: one will do to measure times.
        warnings.simplefilter("ignore", UserWarning)
        tflite.convert(model, path, calibration_data=data, **OPTIONS[precision])


@functools.lru_cache(1)
def own_model(builder: str) -> keras.Model:
    """Returns one of our networks whose every weight is random."""
    return randomised(getattr(keras_mobilevit, builder)(weights=None))


def peak_model() -> keras.Model:
    """Returns large 1x1 convolutions: what they reach is the peak."""
    layers, side, channels = PEAK_SHAPE
    image = x = keras.Input((side, side, channels), name="image")
    for _ in range(layers):
        x = ConvNormAct(channels, 1, activation=None)(x)
    return randomised(keras.Model(image, x))


def randomised(model: keras.Model) -> keras.Model:
    """Fills all weights of a model, in place."""
    for weight in model.weights:
        shape = tuple(weight.shape)
        fan_in = int(np.prod(shape[:-1])) if len(shape) > 1 else 0
        if len(shape) == 4 and shape[-1] == 1:  # depthwise
            fan_in = int(np.prod(shape[:2]))
        weight.assign(random_weight(weight.path, shape, fan_in))
    return model


def export(environments: Path, folder: Path) -> dict[str, str]:
    """Has each environment write its files; returns those that are missing."""
    missing = {}
    scripts = Path(__file__).parent / "peers"
    for name in ("keras", "torch"):
        python = environments / name / "bin" / "python"
        if not (environments / name / "ready").exists():
            missing[f"all of {name}"] = f"make.sh has not made {python}"
            continue
        # An environment of its own is one without this one's path.
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [
                *(python, scripts / f"export_{name}.py", folder.absolute()),
                *FLAGS.only,
            ],
            env=clean,
        )
        if done.returncode:
            missing[f"all of {name}"] = f"exit status {done.returncode}"
    return missing


def measure(folder: Path, missing: dict[str, str]) -> Comparison:
    """Times the files of each network in turns."""
    order = {name: i for i, name in enumerate((*CARDS, PEAK))}
    paths = sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix in (".tflite", ".onnx")
            and path.name.split(".")[0] in order
            and (wanted(path.name) or path.name.startswith(f"{PEAK}."))
        ),
        key=lambda path: (order[path.name.split(".")[0]], path.name),
    )
    facts, timings, networks = {}, {}, {}
    for path in paths:
        try:
            facts[path] = file_row(path)
        except (ImportError, RuntimeError, ValueError) as error:
            missing[path.name] = f"it cannot be run: {error}"
            continue
        networks.setdefault(facts[path]["model"], []).append(path)
    for usable in networks.values():
        for threads in FLAGS.threads:
            times = take_turns_anew(
                [functools.partial(opened, path, threads) for path in usable],
                *(FLAGS.repeats, 5, FLAGS.repeats * FLAGS.runs),
                FLAGS.seconds and FLAGS.repeats * FLAGS.seconds,
            )
            for path, own in zip(usable, times):
                row = timing(path.name, threads, own, times[0])
                timings.setdefault(path, []).append(row)
    rows = tuple(
        Row(**facts[path], timings=tuple(timings[path])) for path in facts
    )
    return Comparison(machine(), tuple(FLAGS.threads), rows, missing)


def file_row(path: Path) -> dict:
    """Returns what a row says of a file besides its times."""
    model, exporter, precision = path.name.split(".")[:3]
    row = dict(model=model, exporter=exporter, precision=precision)
    if path.suffix == ".onnx":
        onnxruntime()
        imports = f"sys.path.append({site_packages()!r})\n"
        memory = resident_memory(
            str(path), f"{imports}import numpy, onnxruntime", _ONNX_RUN
        )
        return dict(
            row,
            size=path.stat().st_size,
            memory=memory,
            **dict(macs=None, ops=None, accelerated={}),
        )
    inspection = tflite.inspect(path)
    checks = {
        target: inspection.check(target, compile_it=False)
        for target in ("cpu", "gpu", "edgetpu")
    }
    return dict(
        row,
        size=inspection.size,
        memory=resident_memory(str(path)),
        macs=inspection.macs,
        ops=len(inspection.ops),
        accelerated={name: found.mapped for name, found in checks.items()},
    )


def opened(path: Path, threads: int) -> Callable[[], object]:
    """Loads a file and returns what runs it once."""
    if path.suffix == ".tflite":
        return load(str(path), threads).invoke
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its idle threads would take the processor from the file that is next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(str(path), options)
    (image,) = session.get_inputs()
    noise = pictures(image.shape[2], 1.0)[:1].transpose(0, 3, 1, 2)
    feeds = {image.name: np.ascontiguousarray(noise)}
    return lambda: session.run(None, feeds)


def onnxruntime():
    """Returns ONNX Runtime, if need be that of the environment `torch`."""
    if site_packages() not in sys.path:
        sys.path.append(site_packages())
    import onnxruntime

    return onnxruntime


def site_packages() -> str:
    """Returns where the environment `torch` keeps its packages."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    place = Path(FLAGS.environments or "", "torch", "lib", version)
    return str(place.absolute() / "site-packages")


def machine() -> str:
    """Returns the processor's name and the number of its cores."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        (name, *_) = (
            line.split(": ")[1] for line in lines if "model name" in line
        )
    except (OSError, ValueError):
        pass
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    app.run(main)
