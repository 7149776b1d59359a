"""The numbers of every architecture: one row a variant, data only."""

import dataclasses


def make_divisible(
    value: float, divisor: int = 8, least: int | None = None
) -> int:
    """Rounds to a multiple of `divisor`, losing at most a tenth.

    Source: MobileNet's rule, which the MobileViT references use.

    Args:
        value: the number to round.
        divisor: what the result is a multiple of.
        least: the smallest result; `None` for `divisor`.
    """
    rounded = int(value + divisor / 2) // divisor * divisor
    rounded = max(least or divisor, rounded)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclasses.dataclass(frozen=True)
class MobileViTConfig:
    """A MobileViT v1 network (arXiv 2110.02178, Table 4 and section A).

    Attributes:
        channels: output channels of the five stages.
        transformer_dims: token width of the MobileViT blocks of stages 3
            to 5; the feed-forward layers are twice as wide.
        head_channels: output channels of the last 1x1 convolution.
        expansion: widening factor inside the inverted residuals.
        transformer_dropout: dropout rate after attention and feed-forward.
        stem_channels: output channels of the first convolution.
        transformer_depths: transformer blocks in stages 3 to 5.
        heads: attention heads.
        patch_size: side of the patches, in pixels of the feature map.
        dropout: dropout rate before the classifier.
        default_size: side of the square input the weights were trained at.
    """

    channels: tuple[int, int, int, int, int]
    transformer_dims: tuple[int, int, int]
    head_channels: int
    expansion: int = 4
    transformer_dropout: float = 0.1
    stem_channels: int = 16
    transformer_depths: tuple[int, int, int] = (2, 4, 3)
    heads: int = 4
    patch_size: int = 2
    dropout: float = 0.1
    default_size: int = 256


MOBILEVIT = {
    "mobilevit_xxs": MobileViTConfig(
        channels=(16, 24, 48, 64, 80),
        transformer_dims=(64, 80, 96),
        head_channels=320,
        expansion=2,
        transformer_dropout=0.05,
    ),
    "mobilevit_xs": MobileViTConfig(
        channels=(32, 48, 64, 80, 96),
        transformer_dims=(96, 120, 144),
        head_channels=384,
    ),
    "mobilevit_s": MobileViTConfig(
        channels=(32, 64, 96, 128, 160),
        transformer_dims=(144, 192, 240),
        head_channels=640,
    ),
}


@dataclasses.dataclass(frozen=True)
class MobileViTV2Config:
    """A MobileViTv2 network (arXiv 2206.02680, Table 5).

    Attributes:
        width: multiplier of all channels.
        expansion: widening factor inside the inverted residuals.
        transformer_depths: transformer blocks in stages 3 to 5.
        patch_size: side of the patches, in pixels of the feature map.
        dropout: dropout rate before the classifier.
        default_size: side of the square input the weights were trained at.
    """

    width: float
    expansion: int = 2
    transformer_depths: tuple[int, int, int] = (2, 4, 3)
    patch_size: int = 2
    dropout: float = 0.0
    default_size: int = 256

    @property
    def stem_channels(self) -> int:
        """Output channels of the first convolution."""
        return make_divisible(min(max(32 * self.width, 16), 64), 8, 16)

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of the five stages."""
        rest = (make_divisible(c * self.width, 8) for c in (128, 256, 384, 512))
        return (make_divisible(64 * self.width, 16), *rest)

    @property
    def transformer_dims(self) -> tuple[int, ...]:
        """Token width of the blocks of stages 3 to 5."""
        return tuple(make_divisible(c * self.width, 8) for c in (128, 192, 256))


MOBILEVIT_V2 = {
    f"mobilevitv2_{round(100 * width):03}": MobileViTV2Config(width)
    for width in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
}

#: The layers whose outputs serve as features, with their total stride when
#: the output stride is 32. `model.get_layer(name).output` gives the tensor.
#: MobileViTv2 has no `conv_1x1_exp`.
ENDPOINTS = {
    "stem": 2,
    "block1": 2,
    "block2": 4,
    "block3": 8,
    "block4": 16,
    "block5": 32,
    "conv_1x1_exp": 32,
}
