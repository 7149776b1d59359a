"""What a target may ask of an operation: limits as small functions."""

import dataclasses
import math
from collections.abc import Callable

from keras_mobilevit.tflite.reader import Op

_EIGHT_BITS = {"int8", "uint8"}


@dataclasses.dataclass(frozen=True)
class Limit:
    """Something that an operation must keep to run on a target.

    Attributes:
        text: what it must keep, in words that complete "it needs ...".
        holds: tells for an operation `True`, `False`, or `None` where no
            source says which.
        source: who says so.
        remedy: what the user can do about it; `""` for nothing.
    """

    text: str
    holds: Callable[[Op], bool | None]
    source: str
    remedy: str = ""


def activations(op: Op) -> list[tuple[str, tuple[int, ...]]]:
    """Returns type and shape of what moves in and out of an operation.

    Nothing does in one that only unpacks constants.
    """
    if op.name == "DEQUANTIZE" and any(op.constant_bytes):
        return []
    read = zip(op.input_dtypes, op.input_shapes, op.constant_bytes)
    moving = [(dtype, shape) for dtype, shape, size in read if not size]
    return moving + list(zip(op.output_dtypes, op.output_shapes))


def is_eight_bit(op: Op) -> bool:
    """Whether all that moves through it is int8 or uint8."""
    return all(dtype in _EIGHT_BITS for dtype, _ in activations(op))


def is_static(op: Op) -> bool:
    """Whether every size is known before the file runs."""
    return all(size >= 0 for _, shape in activations(op) for size in shape)


def has_three_axes(op: Op) -> bool:
    """Whether only the three innermost axes are longer than 1."""
    return all(size == 1 for _, shape in activations(op) for size in shape[:-3])


def has_four_axes(op: Op) -> bool:
    """Whether no tensor, constants included, has more than four axes."""
    return all(len(shape) <= 4 for shape in op.input_shapes + op.output_shapes)


def leads_with_batch_one(op: Op) -> bool | None:
    """Whether the first of three or more axes is 1, the batch."""
    shapes = [shape for _, shape in activations(op) if len(shape) > 2]
    return all(shape[0] == 1 for shape in shapes) or None


def is_known_to_gpu(op: Op) -> bool | None:
    """Whether its types are some that a GPU delegate was seen to take."""
    known = {"float32", "float16", "int8", "uint8", "int32", "bool"}
    return {dtype for dtype, _ in activations(op)} <= known or None


def has_constant_weights(op: Op) -> bool:
    """Whether kernel and bias stand in the file."""
    return all(op.constant_bytes[1:])


def has_one_scale(op: Op) -> bool | None:
    """Whether the kernel has one scale, not one for each channel."""
    return None if op.per_channel else True


def is_equally_dilated(op: Op) -> bool:
    """Whether the kernel is spread as far along x as along y."""
    return op.options.get("dilation_w", 1) == op.options.get("dilation_h", 1)


def has_no_fused_activation(op: Op) -> bool:
    """Whether no activation function is part of the operation."""
    return not op.options.get("activation", 0)


def has_default_weights(op: Op) -> bool:
    """Whether the weights are stored in the default order."""
    return not op.options.get("weights_format", 0)


def joins_no_constant(op: Op) -> bool | None:
    """Whether all parts of a concatenation are computed.

    One constant may stand beside one other part if it is all zeros, which
    is not looked at.
    """
    if not any(op.constant_bytes):
        return True
    return None if len(op.constant_bytes) == 2 else False


def has_one_long_axis(op: Op) -> bool:
    """Whether the result has one axis longer than 1."""
    return sum(size > 1 for size in op.output_shapes[0]) <= 1


def is_short_softmax(op: Op) -> bool:
    """Whether it is over one axis of at most 16,000 values."""
    return has_one_long_axis(op) and math.prod(op.output_shapes[0]) <= 16_000


def reduced_axes(op: Op) -> tuple[int, ...] | None:
    """The axes that are reduced, from 0; `None` if they are not constant."""
    if len(op.values) < 2 or not op.values[1]:
        return None
    rank = len(op.input_shapes[0])
    return tuple(axis % rank if rank else 0 for axis in op.values[1])


def keeps_batch(op: Op) -> bool | None:
    """Whether the first of four axes, the batch, is not reduced."""
    axes = reduced_axes(op)
    if axes is None:
        return None
    return len(op.input_shapes[0]) < 4 or 0 not in axes


def reduces_fours(op: Op) -> bool | None:
    """Whether channels, if they are reduced, are a multiple of four."""
    axes, shape = reduced_axes(op), op.input_shapes[0]
    if axes is None:
        return None
    return len(shape) - 1 not in axes or shape[-1] % 4 == 0


def pads_no_batch(op: Op) -> bool | None:
    """Whether nothing is added along the first of four axes."""
    if len(op.values) < 2 or not op.values[1]:
        return None
    return len(op.input_shapes[0]) < 4 or not any(op.values[1][:2])


def splits_no_batch(op: Op) -> bool | None:
    """Whether a SPLIT is not along the first of four axes."""
    if not op.values or len(op.values[0]) != 1 or len(op.input_shapes) < 2:
        return None
    rank = len(op.input_shapes[1])
    return rank < 4 or op.values[0][0] % rank != 0


def packs_no_batch(op: Op) -> bool:
    """Whether a PACK does not make a new first axis of four."""
    rank = len(op.output_shapes[0])
    return rank < 4 or op.options.get("axis", 0) % rank != 0


def squeezes_leading(op: Op) -> bool:
    """Whether only leading axes of length 1 vanish."""
    before, after = op.input_shapes[0], op.output_shapes[0]
    kept = before[len(before) - len(after) :]
    return len(after) <= len(before) and kept == after


def slices_every_value(op: Op) -> bool | None:
    """Whether a STRIDED_SLICE skips nothing and adds no axis."""
    if len(op.values) < 4 or not op.values[3]:
        return None
    masks = ("ellipsis_mask", "new_axis_mask")
    return set(op.values[3]) == {1} and not any(
        op.options.get(mask, 0) for mask in masks
    )


def has_flat_slope(op: Op) -> bool:
    """Whether the slope of a PRELU differs only between channels."""
    slopes = op.input_shapes[1] if len(op.input_shapes) > 1 else ()
    return all(size == 1 for size in slopes[:-1])


def resizes_little(op: Op) -> bool | None:
    """Whether it enlarges at most twofold; 15-fold and more do not map."""
    before, after = op.input_shapes[0][1:3], op.output_shapes[0][1:3]
    factor = max(
        (new / old for old, new in zip(before, after) if old > 0), default=1
    )
    if min((new - old for old, new in zip(before, after)), default=0) < 0:
        return None
    return True if factor <= 2 else False if factor >= 15 else None


def doubles_at_most(op: Op) -> bool | None:
    """The same, of the nearest neighbour, where no upper limit is known."""
    return resizes_little(op) or None


def is_small_reshape(op: Op) -> bool | None:
    """Whether it has no more values than the largest one seen to map."""
    return math.prod(op.output_shapes[0]) <= 1001 or None


def is_small_mean(op: Op) -> bool | None:
    """Whether a mean over a picture is of a size that was seen to map."""
    axes, shape = reduced_axes(op), op.input_shapes[0]
    if axes is None or len(shape) != 4 or not {1, 2} & set(axes):
        return True
    area = shape[1] * shape[2]
    return True if area <= 64 * 128 else False if area >= 256 * 128 else None


def never_sure(op: Op) -> None:
    """For operations that map or not for reasons that nobody has told."""
