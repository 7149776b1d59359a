"""Writes the files of timm and transformers, by litert-torch and to ONNX.

Run it with the environment `torch` that `make.sh` made:

    ENVIRONMENTS/torch/bin/python export_torch.py FOLDER [word ...]

- `timm.float32`, `transformers.float32`: litert-torch;
- `timm.int8_pt2e`: litert-torch with PyTorch's PT2E quantization;
- `timm.int8_static`: the float32 file through ai-edge-quantizer's static
  recipe;
- `onnx.float32`, `onnx.int8`: timm for ONNX Runtime, the second quantized
  statically (QDQ, a scale for each channel).

One to four minutes a file.
"""

import functools
import sys
import types

import numpy as np
import torch
from exporting import SIZES
from exporting import pictures
from exporting import random_weight
from exporting import run

TIMM = {
    "mobilevit_xxs": "mobilevit_xxs",
    "mobilevit_xs": "mobilevit_xs",
    "mobilevit_s": "mobilevit_s",
    "mobilevitv2_050": "mobilevitv2_050",
    "mobilevitv2_100": "mobilevitv2_100",
    "deit_tiny": "deit_tiny_patch16_224",
    "pit_xs": "pit_xs_224",
}
# PyPI's torchvision is built for CUDA, and beside a CPU build of PyTorch its
# own operators do not load. timm and transformers need none of them, only the
# import, which fails where it describes them.
_DESCRIPTIONS = "torchvision._meta_registrations"
sys.modules[_DESCRIPTIONS] = types.ModuleType(_DESCRIPTIONS)

#: The numbers of the Apple configurations on the hub, from the papers.
TRANSFORMERS = {
    "mobilevit_xxs": {
        "hidden_sizes": [64, 80, 96],
        "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
        "expand_ratio": 2.0,
    },
    "mobilevit_xs": {
        "hidden_sizes": [96, 120, 144],
        "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384],
    },
    "mobilevit_s": {},
    "mobilevitv2_050": {"width_multiplier": 0.5},
    "mobilevitv2_100": {"width_multiplier": 1.0},
}


def main() -> None:
    """Writes what the command line asks for."""
    writers = {
        "timm.float32.tflite": (TIMM, timm_float32),
        "timm.int8_pt2e.tflite": (TIMM, timm_int8_pt2e),
        "timm.int8_static.tflite": (TIMM, timm_int8_static),
        "transformers.float32.tflite": (TRANSFORMERS, transformers_float32),
        "onnx.float32.onnx": (TIMM, onnx_float32),
        "onnx.int8.onnx": (TIMM, onnx_int8),
    }
    run(
        {
            f"{name}.{ending}": functools.partial(write, name)
            for ending, (names, write) in writers.items()
            for name in names
        }
    )


def timm_float32(name, path):
    """timm through litert-torch."""
    import litert_torch

    litert_torch.convert(*channels_last(name, timm_model(name))).export(
        str(path)
    )


def transformers_float32(name, path):
    """transformers through litert-torch."""
    import litert_torch
    import transformers

    kind = "MobileViTV2" if "v2" in name else "MobileViT"
    options = dict(TRANSFORMERS[name], num_labels=1000, image_size=256)
    config = getattr(transformers, f"{kind}Config")(**options)
    model = getattr(transformers, f"{kind}ForImageClassification")(config)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image):
            return self.model(image).logits

    litert_torch.convert(*channels_last(name, randomised(Logits()))).export(
        str(path)
    )


def timm_int8_pt2e(name, path):
    """timm with PyTorch's own quantization, the recipe of litert-torch."""
    import litert_torch
    from litert_torch.quantize import pt2e_quantizer
    from litert_torch.quantize.quant_config import QuantConfig
    from torchao.quantization.pt2e import quantize_pt2e

    model, arguments = channels_last(name, timm_model(name))
    quantizer = pt2e_quantizer.PT2EQuantizer().set_global(
        pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    )
    exported = torch.export.export(model, arguments).module()
    prepared = quantize_pt2e.prepare_pt2e(exported, quantizer)
    for picture in pictures(SIZES[name], 1.0):
        prepared(torch.from_numpy(picture[np.newaxis]))
    converted = quantize_pt2e.convert_pt2e(prepared, fold_quantize=False)
    config = QuantConfig(pt2e_quantizer=quantizer)
    litert_torch.convert(converted, arguments, quant_config=config).export(
        str(path)
    )


def timm_int8_static(name, path):
    """The float32 file of timm, every operation in int8."""
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer import recipe

    float_file = path.with_name(f"{name}.timm.float32.tflite")
    if not float_file.exists():
        raise FileNotFoundError(f"it is made of {float_file.name}")
    maker = quantizer.Quantizer(str(float_file), recipe.static_wi8_ai8())
    ranges = maker.calibrate(
        {
            "serving_default": [
                {"args_0": picture[np.newaxis]}
                for picture in pictures(SIZES[name], 1.0)
            ]
        }
    )
    maker.quantize(ranges).export_model(str(path), overwrite=True)


def onnx_float32(name, path):
    """timm as ONNX, batch norms folded by ONNX Runtime."""
    size = SIZES[name]
    torch.onnx.export(
        timm_model(name),
        (torch.zeros(1, 3, size, size),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
    )


def onnx_int8(name, path):
    """The ONNX file quantized statically."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(quantization.CalibrationDataReader):
        def __init__(self):
            self.rest = iter(pictures(SIZES[name], 1.0))

        def get_next(self):
            picture = next(self.rest, None)
            if picture is None:
                return None
            return {"image": picture.transpose(2, 0, 1)[np.newaxis]}

    float_file = path.with_name(f"{path.stem}.float.onnx")
    try:
        onnx_float32(name, float_file)
        quant_pre_process(str(float_file), str(float_file))
        quantization.quantize_static(
            str(float_file),
            str(path),
            Pictures(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
        )
    finally:
        float_file.unlink(missing_ok=True)


def channels_last(name, model):
    """Returns a model that takes TFLite's layout, and example arguments."""
    import litert_torch

    size = SIZES[name]
    picture = torch.from_numpy(pictures(size, 1.0)[:1])
    return litert_torch.to_channel_last_io(model, args=[0]).eval(), (picture,)


def timm_model(name):
    """Returns timm's model whose every weight is random."""
    import timm

    return randomised(timm.create_model(TIMM[name]))


@torch.no_grad()
def randomised(model):
    """Fills parameters and statistics with random numbers, in place."""
    weights = dict(model.named_parameters())
    weights.update(model.named_buffers())
    for name, weight in weights.items():
        if not weight.is_floating_point():
            continue
        # One row sums up all axes but the first.
        fan_in = int(np.prod(weight.shape[1:])) if weight.ndim > 1 else 0
        values = random_weight(name, tuple(weight.shape), fan_in)
        weight.copy_(torch.from_numpy(values))
    return model.eval()


if __name__ == "__main__":
    main()
