"""TFLite files of a few operations, written by hand."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class T:
    """A tensor: an activation, or a constant if it has `data`."""

    shape: tuple
    dtype: str = "int8"
    data: np.ndarray | None = None
    scales: int = 1


@dataclasses.dataclass
class O:  # noqa: E742
    """An operation: a builtin by its name, or a custom one."""

    name: str
    inputs: tuple
    outputs: tuple
    version: int = 1
    options: tuple = ()  # of a table's name, and its fields


def axes(*values):
    return T((len(values),), "int32", np.array(values, "<i4"))


def build(path, tensors, ops, inputs=(0,), outputs=None, **model_options):
    """Writes a file of one graph, or of as many equal ones as `graphs`."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    graphs = model_options.pop("graphs", 1)
    signature = model_options.pop("signature", False)
    assert not model_options
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [], []
    model.buffers = [schema.BufferT()]
    for op in ops:
        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, op.name, None)
        if number is None:
            number, code.customCode = schema.BuiltinOperator.CUSTOM, op.name
        code.builtinCode = number
        code.deprecatedBuiltinCode = min(number, 127)
        code.version = op.version
        model.operatorCodes.append(code)
    outputs = ops[-1].outputs if outputs is None else outputs
    for _ in range(graphs):
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = [], []
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        for i, own in enumerate(tensors):
            tensor = schema.TensorT()
            tensor.name, tensor.shape = f"t{i}", [abs(n) for n in own.shape]
            if min(own.shape, default=1) < 0:
                tensor.shapeSignature = list(own.shape)
            tensor.type = getattr(schema.TensorType, own.dtype.upper())
            if "int8" in own.dtype:
                tensor.quantization = schema.QuantizationParametersT()
                tensor.quantization.scale = [0.1] * own.scales
                tensor.quantization.zeroPoint = [0] * own.scales
            if own.data is not None:
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(own.data.tobytes(), np.uint8)
                tensor.buffer = len(model.buffers)
                model.buffers.append(buffer)
            graph.tensors.append(tensor)
        for number, own in enumerate(ops):
            op = schema.OperatorT()
            op.opcodeIndex = number
            op.inputs, op.outputs = list(own.inputs), list(own.outputs)
            if own.options:
                table, fields = own.options
                op.builtinOptions = getattr(schema, table + "T")()
                op.builtinOptionsType = getattr(schema.BuiltinOptions, table)
                for name, value in fields.items():
                    assert hasattr(op.builtinOptions, name)
                    setattr(op.builtinOptions, name, value)
            graph.operators.append(op)
        model.subgraphs.append(graph)
    if signature:
        entry = schema.SignatureDefT()
        entry.signatureKey, entry.subgraphIndex = "serving_default", 0
        entry.inputs, entry.outputs = (
            [named(schema, f"{kind}_{t}", t) for t in ends]
            for kind, ends in (("in", inputs), ("out", outputs))
        )
        model.signatureDefs = [entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def named(schema, name, tensor):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry
