"""What a written file must keep, by its precision."""

from keras_mobilevit.tflite.inspect import Inspection

#: Precisions whose activations are integers: they need calibration.
INTEGER = ("int8", "int8_mixed", "int16x8")
#: Those that a quantization-aware model can be written with.
TRAINED = ("int8", "int8_mixed")
#: Those whose files hold the norms in float, operation by operation.
SIMPLIFIED = ("float32", "float16", "dynamic_int8", "int8_mixed")
#: The newest runtime that the Edge TPU compiler and old phones understand.
MAX_RUNTIME = (2, 5, 0)
MAX_RANK = 4


class ConversionError(RuntimeError):
    """No file can be written, or one does not keep what was promised."""


def check_promises(
    inspection: Inspection,
    precision: str,
    input_dtype: str,
    is_whole: bool = True,
) -> None:
    """Raises `ConversionError` unless a file is what was asked for.

    Args:
        inspection: what is in the file.
        precision: one of `PRECISIONS`.
        input_dtype: the type that inputs and outputs should have.
        is_whole: whether all layers should have this precision.
    """
    broken = []
    if inspection.dynamic_tensors:
        broken.append(
            f"{len(inspection.dynamic_tensors)} tensors have a dynamic size"
        )
    if inspection.max_rank > MAX_RANK:
        broken.append(
            f"a tensor has {inspection.max_rank} axes, not {MAX_RANK}"
        )
    custom = sorted(op.name for op in inspection.ops if op.is_custom)
    if custom:
        broken.append(f"custom operations: {', '.join(custom)}")
    for tensor in (*inspection.inputs, *inspection.outputs):
        if tensor.dtype != input_dtype:
            broken.append(f"{tensor.name} is {tensor.dtype}, not {input_dtype}")
    if not inspection.signatures:
        broken.append("there is no signature")
    is_int8 = is_whole and precision == "int8"
    if is_int8 and inspection.float_ops:
        broken.append(f"float operations: {inspection.float_ops}")
    runtime = inspection.min_runtime_version or (float("inf"),)
    if is_int8 and runtime > MAX_RUNTIME:
        broken.append(f"it needs TFLite {inspection.min_runtime}")
    if is_whole and precision in INTEGER:
        dtype = "int16" if precision == "int16x8" else "int8"
        weighted = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
        late = [
            op.name
            for op in inspection.ops
            if op.name in weighted and op.output_dtypes[0] != dtype
        ]
        if late:
            broken.append(f"{len(late)} layers with weights are not {dtype}")
    if broken:
        raise ConversionError(
            f"The {precision} file does not keep its promise: "
            f"{'; '.join(broken)}. A layer of the model has no form that the "
            "converter can write so; `precision='float32'` writes it as it is."
        )
