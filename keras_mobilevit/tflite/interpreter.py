"""Running a TFLite file on pictures, as a program on a device would."""

import collections
import dataclasses
import os
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilevit.tflite import flatbuffer
from keras_mobilevit.tflite.inspect import inspect

#: The scale of an integer input that takes pixels of [0, 255] is about 1,
#: that of one which takes [0, 1] about 1/255.
_PIXEL_SCALE = 0.1


def open_interpreter(
    path: str | os.PathLike,
    num_threads: int | None = None,
    use_delegate: bool = True,
) -> Any:
    """Loads a file into the LiteRT runtime, ready to be fed.

    Args:
        path: a `.tflite` file.
        num_threads: CPU threads; `None` for all cores.
        use_delegate: whether XNNPACK may run what it can, as it does on
            devices.

    Returns:
        An `ai_edge_litert.interpreter.Interpreter`.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: it is no intact TFLite file, the installed runtime cannot
            run it, or `num_threads` is below 1.
    """
    if num_threads is None:
        num_threads = os.cpu_count()
    if not _is_count(num_threads):
        raise ValueError(
            "`num_threads` must be a positive integer or `None`. "
            f"Received: num_threads={num_threads!r}"
        )
    # The runtime does not survive every damaged file.
    inspect(path)
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.interpreter import OpResolverType

    resolver = OpResolverType.AUTO
    if not use_delegate:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = Interpreter(
            str(path),
            num_threads=num_threads,
            experimental_op_resolver_type=resolver,
        )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"The installed LiteRT runtime cannot run the file: {error}. "
            f"Received: path={path}"
        ) from error
    return interpreter


@dataclasses.dataclass(frozen=True)
class Delegation:
    """How XNNPACK has divided a graph.

    Attributes:
        ops: operations in the main graph.
        partitions: how many pieces XNNPACK runs; the fewer, the better.
        outside: `{op name: count}` of the operations that it does not run.
        inside: the indices of those that it runs.
    """

    ops: int
    partitions: int
    outside: dict[str, int]
    inside: frozenset[int]


def delegation(interpreter: Any) -> Delegation:
    """Reads from a loaded interpreter what its delegate has taken over."""
    return divide(interpreter._get_ops_details())


def divide(ops: Sequence[dict]) -> Delegation:
    """Tells which operations a delegate has taken over.

    The runtime appends a DELEGATE node for each partition and keeps the
    operations it replaces, without saying which. They are those that lead to
    an output of the node without passing one of its inputs.

    Args:
        ops: the details that a loaded interpreter gives of each.
    """
    partitions = [op for op in ops if op["op_name"] == "DELEGATE"]
    ops = [op for op in ops if op["op_name"] != "DELEGATE"]
    writer = {int(t): op for op in ops for t in op["outputs"]}
    inside = set()
    for partition in partitions:
        border = set(map(int, partition["inputs"]))
        frontier = list(map(int, partition["outputs"]))
        while frontier:
            tensor = frontier.pop()
            op = writer.get(tensor)
            if op is None or tensor in border or op["index"] in inside:
                continue
            inside.add(op["index"])
            frontier.extend(map(int, op["inputs"]))
    outside = [op["op_name"] for op in ops if op["index"] not in inside]
    return Delegation(
        len(ops),
        len(partitions),
        dict(collections.Counter(outside).most_common()),
        frozenset(inside),
    )


class Runner:
    """A classifier file that is fed by name, one picture at a time.

    Args:
        path: a `.tflite` file with one input `(1, height, width, 3)`.
        num_threads: CPU threads; `None` for all cores.
        use_delegate: whether XNNPACK may be used.
        output: the name of the output to read; needed only if the file has
            several.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is damaged, has no signature, or other inputs
            or outputs than are needed.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        num_threads: int | None = None,
        use_delegate: bool = True,
        output: str | None = None,
    ):
        interpreter = open_interpreter(path, num_threads, use_delegate)
        signatures = interpreter.get_signature_list()
        if not signatures:
            raise ValueError(
                "The file has no signature, so its inputs have no dependable "
                f"names. Received: path={path}"
            )
        key = next(iter(signatures))
        self._run = interpreter.get_signature_runner(key)
        inputs = self._run.get_input_details()
        outputs = self._run.get_output_details()
        shapes = {name: tuple(d["shape"]) for name, d in inputs.items()}
        if len(inputs) != 1 or not all(
            len(shape) == 4 and shape[0] == 1 and shape[3] == 3
            for shape in shapes.values()
        ):
            raise ValueError(
                "The file must have one input of the shape (1, height, "
                f"width, 3). Received: path={path}, with the inputs {shapes}"
            )
        if output is None and len(outputs) > 1:
            raise ValueError(
                "The file has several outputs; choose one by `output`. "
                f"Received: path={path}, with {sorted(outputs)}"
            )
        if output is not None and output not in outputs:
            raise ValueError(
                f"`output` must be one of {sorted(outputs)}. "
                f"Received: output={output!r}"
            )
        self.path = str(path)
        self.input_name, self._input = next(iter(inputs.items()))
        self.output_name = next(iter(outputs)) if output is None else output
        self._output = outputs[self.output_name]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        return tuple(map(int, self._input["shape"][1:]))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output for one picture, without the batch."""
        return tuple(map(int, self._output["shape"][1:]))

    @property
    def takes_pixels(self) -> bool | None:
        """Whether the input is in [0, 255]; `None` if the file is silent.

        Only integer inputs tell, by their scale.
        """
        scale, _ = self._input["quantization"]
        return scale > _PIXEL_SCALE if scale else None

    def __call__(self, pictures: Any) -> np.ndarray:
        """Runs the file on pictures.

        Args:
            pictures: `(n, height, width, 3)` of the file's size, RGB. Of
                type uint8 they are pixels; other types are values in the
                range that the model was trained on, and are quantized as
                the file says.

        Returns:
            float32 array `(n, ...)`: the output, dequantized.

        Raises:
            ValueError: `pictures` has another shape or a value that is not
                finite.
        """
        pictures = check_pictures(pictures, self.input_shape, "pictures")
        rows = []
        for picture in self._fed(pictures):
            result = self._run(**{self.input_name: picture[np.newaxis]})
            rows.append(self._read(result[self.output_name])[0])
        if not rows:
            return np.zeros((0, *self.output_shape), "float32")
        return np.stack(rows)

    def _fed(self, pictures: np.ndarray) -> np.ndarray:
        """Returns the pictures as the file's input takes them."""
        dtype = np.dtype(self._input["dtype"])
        scale, zero_point = self._input["quantization"]
        if dtype.kind == "f":
            return pictures.astype(dtype)
        if pictures.dtype == np.uint8 and dtype == np.uint8:
            return pictures
        values = pictures.astype("float32")
        if pictures.dtype == np.uint8 and self.takes_pixels is False:
            values /= 255
        limits = np.iinfo(dtype)
        steps = np.rint(values / (scale or 1)) + zero_point
        return np.clip(steps, limits.min, limits.max).astype(dtype)

    def _read(self, values: np.ndarray) -> np.ndarray:
        scale, zero_point = self._output["quantization"]
        if values.dtype.kind == "f" or not scale:
            return values.astype("float32")
        return (values.astype("float32") - zero_point) * np.float32(scale)


def run_graph(
    model: Any, inputs: Sequence[Sequence[np.ndarray]]
) -> Iterator[list[np.ndarray]]:
    """Yields the outputs of a file in memory for each picture, as they are.

    Args:
        model: object tree of `flatbuffer.read_model`.
        inputs: for each input of the graph its values, one array a picture.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=flatbuffer.write_model(model))
    interpreter.allocate_tensors()
    sources = [end["index"] for end in interpreter.get_input_details()]
    results = [end["index"] for end in interpreter.get_output_details()]
    for values in zip(*inputs):
        for source, value in zip(sources, values):
            interpreter.set_tensor(source, value)
        interpreter.invoke()
        yield [interpreter.get_tensor(result) for result in results]


def as_input(tensor: Any, pictures: np.ndarray) -> list[np.ndarray]:
    """Returns pictures as an input takes them, one by one, batch 1.

    Args:
        tensor: the input, of an object tree.
        pictures: float array of the values that it stands for.
    """
    if not flatbuffer.is_float(tensor):
        limits = np.iinfo(flatbuffer.dtype(tensor))
        steps = np.rint(pictures / tensor.quantization.scale[0])
        steps = steps + tensor.quantization.zeroPoint[0]
        pictures = np.clip(steps, limits.min, limits.max).astype(limits.dtype)
    return [picture[np.newaxis] for picture in pictures]


def check_pictures(
    pictures: Any, shape: Sequence[int], argument: str
) -> np.ndarray:
    """Returns a batch of pictures as an array, or raises.

    Args:
        pictures: one picture or a batch.
        shape: `(height, width, channels)` that each must have.
        argument: the name of the user's argument, for the messages.

    Raises:
        ValueError: another shape, no numbers, or a number that is not finite.
    """
    pictures = np.asarray(pictures)
    if pictures.ndim == 3:
        pictures = pictures[np.newaxis]
    if pictures.ndim != 4 or pictures.shape[1:] != tuple(shape):
        raise ValueError(
            f"Each picture of `{argument}` must have the shape {tuple(shape)} "
            f"of the file's input. Received: an array of shape {pictures.shape}"
        )
    if pictures.dtype.kind not in "uif":
        raise ValueError(
            f"`{argument}` must hold numbers. Received: dtype={pictures.dtype}"
        )
    if pictures.dtype.kind == "f" and not np.isfinite(pictures).all():
        raise ValueError(
            f"`{argument}` must hold finite numbers. "
            "Received: NaN or infinity in a picture"
        )
    return pictures


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
