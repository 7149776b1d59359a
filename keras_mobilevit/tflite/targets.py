"""What each device wants of a file: one row a device."""

import dataclasses

#: Every precision that `convert` can write, from exact to small.
PRECISIONS = (
    "float32",
    "float16",
    "dynamic_int8",
    "int16x8",
    "int8_mixed",
    "int8",
)


@dataclasses.dataclass(frozen=True)
class Target:
    """A device or delegate that runs TFLite files.

    Attributes:
        description: the device in words.
        precision: the precision that suits it best.
        precisions: every precision that it runs.
    """

    description: str
    precision: str
    precisions: tuple[str, ...] = PRECISIONS


TARGETS = {
    "cpu": Target("a phone's or a computer's CPU (XNNPACK)", "int8_mixed"),
    "gpu": Target(
        "a phone's GPU (ML Drift)", "float16", ("float32", "float16")
    ),
    "edgetpu": Target("a Coral Edge TPU", "int8", ("int8",)),
}
