"""What each device wants of a file: one row a device."""

import dataclasses

from keras_mobilevit.tflite import rules
from keras_mobilevit.tflite.rules import Limit

#: Every precision that `convert` can write, from exact to small.
PRECISIONS = (
    "float32",
    "float16",
    "dynamic_int8",
    "int16x8",
    "int8_mixed",
    "int8",
)
#: How the verdicts of `Inspection.check` come about.
MEASURED, PREDICTED, NO_CLAIM = "measured", "predicted", "no claim"

_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Target:
    """A device, delegate or program that runs TFLite files.

    Attributes:
        description: the device in words.
        precision: the precision that suits it best; `None` for one of
            `READERS`.
        precisions: every precision that it runs.
        basis: `MEASURED` with the installed runtime, `PREDICTED` from the
            rules of this row, or `NO_CLAIM`.
        ops: the operations that it runs, each with its limits.
        refused: those that it is known not to run, each with a remedy.
        lists_all: whether an operation that neither names is refused;
            otherwise it is unknown.
        limits: what every operation must keep.
        source: who says which operations it runs.
        one_part: whether it runs one connected part of the graph only, which
            starts at the input.
        io_dtypes: the types of input and outputs that it takes; `()` for all.
        needs_static: whether it refuses a file with a size that is known
            only at run time.
        max_runtime: the newest TFLite runtime that a file may need; `()` for
            any.
        max_versions: for operations the newest version that it reads.
        memory: bytes on the chip that can keep weights, as the least and the
            most that was seen; `()` if that is no matter.
        cached_per_byte: the least and the most bytes that a byte of weights
            took there.
    """

    description: str
    precision: str | None
    precisions: tuple[str, ...] = PRECISIONS
    basis: str = NO_CLAIM
    ops: dict[str, tuple[Limit, ...]] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    lists_all: bool = False
    limits: tuple[Limit, ...] = ()
    source: str = ""
    one_part: bool = False
    io_dtypes: tuple[str, ...] = ()
    needs_static: bool = False
    max_runtime: tuple[int, ...] = ()
    max_versions: dict[str, int] = dataclasses.field(default_factory=dict)
    memory: tuple[int, ...] = ()
    cached_per_byte: tuple[float, ...] = ()


# The Edge TPU.

_CORAL = "Google's table of operations for the Edge TPU compiler 16"
_CORAL_PAIRS = "files that Google published with their compiled twins"
_CORAL_REPORTS = "logs of the Edge TPU compiler 16 in google-coral/edgetpu"
_FLAT = "keep batch 1 and at most three axes longer than 1 from the input on"
_CPU_ADVICE = (
    "an Edge TPU runs the convolutional part: `convert(..., "
    'target="edgetpu", split=True)` writes that part and the rest as two files'
)

_UNFUSED = Limit(
    "no fused activation function", rules.has_no_fused_activation, _CORAL
)
_CONSTANT = Limit(
    "weights that stand in the file", rules.has_constant_weights, _CORAL
)
_DILATED = Limit(
    "the same dilation in x and y", rules.is_equally_dilated, _CORAL
)
_KEEPS_BATCH = Limit(
    "constant axes without the batch", rules.keeps_batch, _CORAL
)
_ANYTHING = ()

_CORAL_OPS = {
    **dict.fromkeys(
        (
            *("ADD", "EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC"),
            *("MAXIMUM", "MINIMUM", "MUL", "QUANTIZE", "RELU", "RELU6"),
            *("RELU_N1_TO_1", "RSQRT", "SLICE", "SPACE_TO_DEPTH"),
            *("SQUARED_DIFFERENCE", "SUB", "TANH", "TILE", "TRANSPOSE_CONV"),
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
        ),
        _ANYTHING,
    ),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), (_UNFUSED,)),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), (_CONSTANT, _DILATED)),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN", "SUM"), (_KEEPS_BATCH,)),
    "CONCATENATION": (
        _UNFUSED,
        Limit(
            "no constant part, save zeros beside one other part",
            rules.joins_no_constant,
            _CORAL,
        ),
    ),
    "FULLY_CONNECTED": (
        _CONSTANT,
        Limit("weights in default order", rules.has_default_weights, _CORAL),
        Limit(
            "a result of one axis",
            rules.has_one_long_axis,
            _CORAL,
            "write a dense layer on a map as a 1x1 convolution",
        ),
        Limit(
            "one scale for its weights: those with one per channel were "
            "not seen by that compiler",
            rules.has_one_scale,
            _CORAL_PAIRS,
            '`convert(..., target="edgetpu")` writes it as a 1x1 convolution',
        ),
    ),
    "MEAN": (
        _KEEPS_BATCH,
        Limit("4, 8, 12, ... channels", rules.reduces_fours, _CORAL),
        Limit(
            "a map of at most 64x128: 256x128 was left on the CPU",
            rules.is_small_mean,
            _CORAL_REPORTS,
        ),
    ),
    "PACK": (Limit("no packed batch", rules.packs_no_batch, _CORAL),),
    "PAD": (Limit("no padded batch", rules.pads_no_batch, _CORAL),),
    "PRELU": (
        Limit(
            "a slope for each channel only",
            rules.has_flat_slope,
            _CORAL,
            "PReLU(shared_axes=[1, 2])",
        ),
    ),
    "RESHAPE": (
        Limit(
            'a small tensor: of large ones "certain reshapes might not be '
            'mapped", and the largest seen to map has 1001 values',
            rules.is_small_reshape,
            _CORAL,
        ),
    ),
    "RESIZE_BILINEAR": (
        Limit(
            "a factor of at most 2; 15 and 33 were left on the CPU",
            rules.resizes_little,
            _CORAL_PAIRS,
            "enlarge in steps of 2",
        ),
    ),
    "RESIZE_NEAREST_NEIGHBOR": (
        Limit(
            "a factor of at most 2, the largest seen",
            rules.doubles_at_most,
            _CORAL_REPORTS,
        ),
    ),
    "SOFTMAX": (
        Limit(
            "one axis of at most 16,000 values",
            rules.is_short_softmax,
            _CORAL,
            _CPU_ADVICE,
        ),
    ),
    "SPLIT": (Limit("no split batch", rules.splits_no_batch, _CORAL),),
    "SQUEEZE": (Limit("leading axes only", rules.squeezes_leading, _CORAL),),
    "STRIDED_SLICE": (Limit("strides of 1", rules.slices_every_value, _CORAL),),
    "TRANSPOSE": (
        Limit(
            "an order of axes that the compiler takes, and it does not tell "
            'which: some are "otherwise supported, but not mapped due to '
            'some unspecified limitation"',
            rules.never_sure,
            _CORAL_REPORTS,
            "ask the compiler: put `edgetpu_compiler` on the PATH",
        ),
    ),
}

# From TensorFlow's runtime_version.cc: the newest version of each operation
# that TFLite 2.5 reads.
_VERSIONS_2_5 = {
    **dict.fromkeys(
        (
            *("CAST", "COS", "ELU", "EXP", "EXPAND_DIMS", "HARD_SWISH", "LOG"),
            *("NEG", "POW", "PRELU", "RELU_N1_TO_1", "RESHAPE", "SIN"),
            *("SQRT", "SQUARE"),
        ),
        1,
    ),
    **dict.fromkeys(
        (
            *("ARG_MAX", "ARG_MIN", "DEPTH_TO_SPACE", "DIV", "LEAKY_RELU"),
            *("L2_NORMALIZATION", "LOG_SOFTMAX", "MIRROR_PAD", "QUANTIZE"),
            *("RSQRT", "SPACE_TO_DEPTH", "SPLIT_V", "SQUARED_DIFFERENCE"),
            *("SQUEEZE", "SUM", "TILE"),
        ),
        2,
    ),
    **dict.fromkeys(
        (
            *("ABS", "ADD", "AVERAGE_POOL_2D", "BROADCAST_TO", "FILL"),
            *("CONCATENATION", "GATHER_ND", "LOGISTIC", "MAX_POOL_2D", "MEAN"),
            *("PACK", "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN", "RELU"),
            *("RELU6", "SOFTMAX", "TANH", "TRANSPOSE_CONV"),
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
        ),
        3,
    ),
    **dict.fromkeys(
        (
            *("BATCH_MATMUL", "DEQUANTIZE", "MAXIMUM", "MINIMUM", "MUL"),
            *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPLIT", "UNPACK"),
        ),
        4,
    ),
    **dict.fromkeys(
        ("CONV_2D", "GATHER", "SLICE", "STRIDED_SLICE", "SUB", "TRANSPOSE"), 5
    ),
    "DEPTHWISE_CONV_2D": 6,
    "FULLY_CONNECTED": 9,
    # Newer than TFLite 2.5, whatever their version.
    **dict.fromkeys(("BROADCAST_ARGS", "DYNAMIC_UPDATE_SLICE", "GELU"), 0),
}

# A GPU.

_ML_DRIFT = "run with LiteRT's ML Drift"
_GPU_LIST = "TensorFlow's gpu_compatibility.cc"
_RANK = (
    "reshape so that no tensor has more than four axes; the blocks of this "
    "package keep that"
)
_GPU_OPS = dict.fromkeys(
    (
        *("ABS", "ADD", "ADD_N", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST"),
        *("CEIL", "CONCATENATION", "CONV_2D", "COS", "DEPTHWISE_CONV_2D"),
        *("DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "ELU", "EQUAL", "EXP"),
        *("FLOOR", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER"),
        *("GELU", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU"),
        *("LESS", "LESS_EQUAL", "LOG", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D"),
        *("MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "NOT_EQUAL", "PACK"),
        *("PAD", "PADV2", "POW", "PRELU", "QUANTIZE", "REDUCE_MAX"),
        *("REDUCE_MIN", "REDUCE_PROD", "RELU", "RELU6", "RELU_N1_TO_1"),
        *("RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT"),
        *("SIN", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V"),
        *("SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "SUM", "TANH"),
        *("TILE", "TRANSPOSE", "TRANSPOSE_CONV"),
    ),
    _ANYTHING,
)

TARGETS = {
    "cpu": Target(
        "a phone's or a computer's CPU (XNNPACK)", "int8_mixed", basis=MEASURED
    ),
    "gpu": Target(
        "a phone's GPU (ML Drift)",
        "float16",
        ("float32", "float16", "int8_mixed", "int8"),
        basis=PREDICTED,
        ops=_GPU_OPS,
        refused={
            "L2_NORMALIZATION": '`convert(..., target="gpu")` writes norms of '
            "int8 files without it"
        },
        limits=(
            Limit("at most 4 axes", rules.has_four_axes, _ML_DRIFT, _RANK),
            Limit(
                'batch 1 as the first axis: older drivers say "Batch size '
                '!= 1 is not supported"',
                rules.leads_with_batch_one,
                "tensorflow#92798 and #99047",
                "keep heads and patches out of the first axis",
            ),
            Limit(
                "types that were tried",
                rules.is_known_to_gpu,
                _ML_DRIFT,
                "use precision='float16'",
            ),
        ),
        source=f"{_GPU_LIST}; those of MobileViT were {_ML_DRIFT}",
        needs_static=True,
    ),
    "edgetpu": Target(
        "a Coral Edge TPU",
        "int8",
        ("int8",),
        basis=PREDICTED,
        ops=_CORAL_OPS,
        refused={
            "BATCH_MATMUL": _CPU_ADVICE,
            "DEQUANTIZE": "use input_dtype='uint8'",
            "HARD_SWISH": 'use activation="swish"',
            "GELU": 'use activation="swish"',
        },
        lists_all=True,
        limits=(
            Limit(
                "int8 or uint8 throughout",
                rules.is_eight_bit,
                _CORAL,
                "use precision='int8' and input_dtype='uint8'",
            ),
            Limit(
                "tensors of which only the three innermost axes are longer "
                "than 1",
                rules.has_three_axes,
                _CORAL,
                _FLAT,
            ),
        ),
        source=_CORAL,
        one_part=True,
        needs_static=True,
        max_runtime=(2, 5, 0),
        max_versions=_VERSIONS_2_5,
        memory=(int(6.1 * _MIB), int(8.1 * _MIB)),
        cached_per_byte=(1.04, 1.33),
    ),
}

#: Programs that read files and hand them on, and what is no longer made for:
#: `check` knows them, `convert` has nothing of its own to write for them.
READERS = {
    "nnapi": Target(
        "Android's NNAPI (deprecated since Android 15)",
        None,
        (),
        source="it is deprecated, and its drivers differ from phone to phone",
    ),
    "mediapipe": Target(
        "MediaPipe Tasks 1.2",
        None,
        (),
        io_dtypes=("uint8", "float32"),
        source="it hands the graph to XNNPACK or to a GPU: check those",
    ),
    "web": Target(
        "a browser (LiteRT.js 2.5)",
        None,
        (),
        io_dtypes=("uint8", "float32"),
        needs_static=True,
        source="it hands the graph to XNNPACK or to a GPU: check those",
    ),
}
