"""What was published about the networks that are compared."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Card:
    """One network.

    Attributes:
        name: as people call it.
        parameters: millions.
        top1: percent on ImageNet-1k.
        source: where `parameters` and `top1` were published.
        builder: ours, for the networks of this package.
    """

    name: str
    parameters: float
    top1: float
    source: str
    builder: str | None = None


_V1 = "MobileViT, arXiv 2110.02178, section 4.1"
_V2 = "apple/ml-cvnets, model zoo of MobileViTv2 (256 pixels)"
_KERAS = "keras.io/api/applications"
_PIT = "naver-ai/pit, README (vanilla classifier, recipe of DeiT)"

CARDS = {
    "mobilevit_xxs": Card("MobileViT-XXS", 1.3, 69.0, _V1, "MobileViT_XXS"),
    "mobilevit_xs": Card("MobileViT-XS", 2.3, 74.8, _V1, "MobileViT_XS"),
    "mobilevit_s": Card("MobileViT-S", 5.6, 78.4, _V1, "MobileViT_S"),
    "mobilevitv2_050": Card(
        "MobileViTv2-0.5", 1.4, 70.2, _V2, "MobileViTV2_050"
    ),
    "mobilevitv2_100": Card(
        "MobileViTv2-1.0", 4.9, 78.1, _V2, "MobileViTV2_100"
    ),
    "mobilenet_v2": Card("MobileNetV2", 3.5, 71.3, _KERAS),
    "mobilenet_v3_large": Card(
        "MobileNetV3-Large", 5.4, 75.6, "keras.applications.mobilenet_v3"
    ),
    "efficientnet_v2_b0": Card("EfficientNetV2-B0", 7.2, 78.7, _KERAS),
    "deit_tiny": Card("DeiT-tiny", 5.7, 72.2, _PIT),
    "pit_xs": Card("PiT-XS", 10.6, 78.1, _PIT),
}
