"""Makes `parity.npz` from transformers' MobileViT, and only from it.

The weights come from a formula over the name and the shape of each variable,
so that both sides of a comparison have them without a file: `fill` gives them
to a Keras model, `reference` to PyTorch's. The formula is a hash in integers,
which no platform and no version computes differently.

Run `python tests/golden/make_golden.py` with the `parity` extra installed.
"""

import pathlib
import re
import zlib

import numpy as np

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE / "parity.npz"
SIZES = ((256, 256), (224, 224), (320, 320), (200, 328))
# hidden sizes | neck sizes | expansion, as in the paper's Table 4
VARIANTS = {
    "mobilevit_xxs": ((64, 80, 96), (16, 16, 24, 48, 64, 80, 320), 2.0),
    "mobilevit_xs": ((96, 120, 144), (16, 32, 48, 64, 80, 96, 384), 4.0),
    "mobilevit_s": ((144, 192, 240), (16, 32, 64, 96, 128, 160, 640), 4.0),
}
ENDPOINTS = ("block1", "block2", "block3", "block4", "block5", "conv_1x1_exp")

# The names of transformers | those of Keras variables, applied in this order.
RENAMES = (
    (r"^mobilevit\.", ""),
    (r"^classifier", "predictions"),
    (r"^conv_stem", "stem"),
    (r"^encoder\.layer\.0\.layer\.0", "block1"),
    (r"^encoder\.layer\.1\.layer\.0", "block2_mv2_1"),
    (r"^encoder\.layer\.1\.layer\.1", "block2_mv2_2"),
    (r"^encoder\.layer\.1\.layer\.2", "block2"),
    (r"^encoder\.layer\.2\.downsampling_layer", "block3_mv2_1"),
    (r"^encoder\.layer\.3\.downsampling_layer", "block4_mv2_1"),
    (r"^encoder\.layer\.4\.downsampling_layer", "block5_mv2_1"),
    (r"^encoder\.layer\.2", "block3"),
    (r"^encoder\.layer\.3", "block4"),
    (r"^encoder\.layer\.4", "block5"),
    (r"expand_1x1", "expand"),
    (r"conv_3x3", "depthwise"),
    (r"reduce_1x1", "project"),
    (r"conv_kxk", "local_conv"),
    (r"conv_1x1\.", "local_project."),
    (r"conv_projection", "project"),
    (r"transformer\.layer\.(\d)", r"transformer_\1"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"layernorm", "norm"),
    (r"attention\.attention", "attention"),
    (r"attention\.output\.dense", "attention.project"),
    (r"intermediate\.dense", "ffn_expand"),
    (r"output\.dense", "ffn_project"),
    (r"\.convolution", ""),
    (r"normalization", "norm"),
    (r"running_mean", "moving_mean"),
    (r"running_var", "moving_variance"),
    (r"(norm\d?)\.weight", r"\1.gamma"),
    (r"(norm\d?)\.bias", r"\1.beta"),
    (r"weight$", "kernel"),
    (r"\.", "/"),
)


def keras_path(name: str) -> str:
    """Returns the path of the Keras variable of a tensor of transformers."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def uniform(path: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns float64 numbers in [0, 1) from a hash of path and position."""
    count = int(np.prod(shape))
    start = np.uint64(zlib.crc32(path.encode()) * 2**31 + seed * 2**24)
    x = start + np.arange(count, dtype=np.uint64)
    # The finalizer of splitmix64.
    x *= np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(11)) / 2.0**53).reshape(shape)


def value(path: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns the float32 value of a Keras variable.

    Every parameter differs from its neutral value, and the ranges keep the
    activations near a deviation of 1 through the network.

    Args:
        path: the path of the variable.
        shape: its shape in Keras.
        seed: another seed, another set of weights.
    """
    x = 2 * uniform(path, shape, seed) - 1
    kind = path.rsplit("/", 1)[-1]
    if kind == "kernel":
        is_depthwise = path.endswith("depthwise/kernel")
        fan_in = 9 if is_depthwise else np.prod(shape[:-1])
        x = x * np.sqrt(3 * 1.5 / fan_in)
    elif kind in ("gamma", "moving_variance"):
        x = 1 + x / 2
    elif kind in ("beta", "moving_mean", "bias"):
        x = x / 3
    else:
        raise ValueError(f"No formula for {path}")
    return x.astype("float32")


def picture(height: int, width: int, batch: int = 1) -> np.ndarray:
    """Returns RGB pictures, float32 in [0, 255]: waves and some noise."""
    y = np.arange(height)[:, None, None] / 23
    x = np.arange(width)[None, :, None] / 17
    channel = np.arange(3)
    waves = np.sin(y + channel) * np.cos(x - 2 * channel)
    noise = uniform("picture", (batch, height, width, 3)) - 0.5
    return (127.5 + 90 * waves + 60 * noise).astype("float32")


def fill(model, seed: int = 0) -> None:
    """Gives a Keras model the weights of the formula."""
    for variable in model.weights:
        variable.assign(value(variable.path, tuple(variable.shape), seed))


def torch_model(variant: str, seed: int = 0, output_stride: int = 32):
    """Returns transformers' model with the weights of the formula."""
    import torch
    from transformers import MobileViTConfig
    from transformers import MobileViTForImageClassification

    hidden, neck, expansion = VARIANTS[variant]
    config = MobileViTConfig(
        hidden_sizes=list(hidden),
        neck_hidden_sizes=list(neck),
        expand_ratio=expansion,
        output_stride=output_stride,
        num_labels=1000,
    )
    model = MobileViTForImageClassification(config).eval()
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        path, shape = keras_path(name), tuple(tensor.shape)
        if len(shape) == 4:  # OIHW from HWIO, depthwise CI from IC
            axes = (2, 3, 0, 1) if "depthwise" in path else (2, 3, 1, 0)
            kernel = value(path, tuple(shape[a] for a in axes), seed)
            array = kernel.transpose(np.argsort(axes))
        elif len(shape) == 2 and path != "predictions/kernel":
            # Keras has the dense layers of tokens as 1x1 convolutions.
            array = value(path, (1, 1, *shape[::-1]), seed)[0, 0].T
        elif len(shape) == 2:
            array = value(path, shape[::-1], seed).T
        else:
            array = value(path, shape, seed)
        if path == "stem/kernel":  # transformers' stem takes BGR
            array = array[:, ::-1]
        state[name] = torch.from_numpy(np.ascontiguousarray(array))
    model.load_state_dict(state)
    return model


def reference(model, image: np.ndarray) -> dict[str, np.ndarray]:
    """Runs transformers' model.

    Args:
        model: from `torch_model`.
        image: RGB pictures, channels last, in [0, 255].

    Returns:
        The map of each endpoint, channels last, and `"logits"`.
    """
    import torch

    bgr = np.ascontiguousarray(image[..., ::-1].transpose(0, 3, 1, 2)) / 255
    last = []
    hook = model.mobilevit.conv_1x1_exp.register_forward_hook(
        lambda module, inputs, output: last.append(output)
    )
    with torch.no_grad():
        output = model(
            torch.from_numpy(bgr.astype("float32")), output_hidden_states=True
        )
    hook.remove()
    maps = [*output.hidden_states, *last]
    results = {
        name: features.numpy().transpose(0, 2, 3, 1)
        for name, features in zip(ENDPOINTS, maps, strict=True)
    }
    results["logits"] = output.logits.numpy()
    return results


def summary(results: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the part that is stored: means, a diagonal, some logits."""
    stored = {"logits": results["logits"][0, :200]}
    for name in ENDPOINTS:
        features = results[name][0]
        side = min(features.shape[:2])
        steps = np.linspace(0, side - 1, 8).round().astype(int)
        stored[f"{name}/mean"] = features.mean(axis=(0, 1))
        # From the first corner and from the last, both ways out of it.
        diagonal = features[steps, steps, :4], features[-1 - steps, -1, :4]
        stored[f"{name}/points"] = np.stack(diagonal)
    return stored


def main() -> None:
    """Writes `parity.npz` beside this script."""
    golden = {}
    for variant in VARIANTS:
        model = torch_model(variant)
        for height, width in SIZES:
            results = reference(model, picture(height, width))
            for name, array in summary(results).items():
                golden[f"{variant}/{height}x{width}/{name}"] = array
    np.savez_compressed(GOLDEN, **golden)
    print(f"{GOLDEN}: {len(golden)} arrays, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
