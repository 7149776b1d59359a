"""What of a file a target runs, operation by operation, and why not."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_mobilevit.tflite import compiler
from keras_mobilevit.tflite import delegates
from keras_mobilevit.tflite import targets
from keras_mobilevit.tflite.origins import outermost_layers
from keras_mobilevit.tflite.reader import Op
from keras_mobilevit.tflite.targets import Target
from keras_mobilevit.tflite.verdicts import MAPS
from keras_mobilevit.tflite.verdicts import MAPS_NOT
from keras_mobilevit.tflite.verdicts import UNKNOWN
from keras_mobilevit.tflite.verdicts import Check
from keras_mobilevit.tflite.verdicts import Finding
from keras_mobilevit.tflite.verdicts import Verdict
from keras_mobilevit.tflite.verdicts import count
from keras_mobilevit.tflite.verdicts import gather

if TYPE_CHECKING:
    from keras_mobilevit.tflite.inspect import Inspection


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What one way to judge a file gives; fields as in `Check`."""

    basis: str
    verdicts: Sequence[Verdict]
    refused: str = ""
    general: Sequence[Finding] = ()
    partitions: int | None = None
    cached_bytes: tuple[int, ...] = ()
    memory: tuple[int, ...] = ()


def check(
    inspection: "Inspection", target: str, compile_it: bool | None = None
) -> Check:
    """Tells which operations of a file a target runs, and why not the others.

    See `Inspection.check`, which calls it.
    """
    known = {**targets.TARGETS, **targets.READERS}
    if target not in known:
        raise ValueError(
            f"`target` must be one of {tuple(known)}. "
            f"Received: target={target!r}"
        )
    row = known[target]
    program = _find_compiler(target, compile_it)
    if program:
        outcome = _by_compiler(inspection, row, program)
    elif row.basis == targets.MEASURED:
        outcome = _by_runtime(inspection)
    else:
        outcome = _by_rules(inspection, row)
    verdicts = outcome.verdicts
    if outcome.refused:
        source = row.source or outcome.basis
        verdicts = [
            dataclasses.replace(
                verdict,
                verdict=MAPS_NOT,
                reason="the file is refused",
                source=source,
                remedy="",
            )
            for verdict in verdicts
        ]
    verdicts = _with_layers(verdicts, inspection.ops)
    mapped = {(v.subgraph, v.index) for v in verdicts if v.verdict == MAPS}
    weights = sum(
        sum(op.constant_bytes)
        for op in inspection.ops
        if (op.subgraph, op.index) in mapped and op.name != "DEQUANTIZE"
    )
    partitions = outcome.partitions
    if partitions is None and row.one_part:
        partitions = int(bool(mapped))
    return Check(
        path=inspection.path,
        target=target,
        description=row.description,
        basis=outcome.basis,
        refused=outcome.refused,
        verdicts=tuple(verdicts),
        total=len(verdicts),
        mapped=len(mapped),
        cpu_ops=count(v.name for v in verdicts if v.verdict == MAPS_NOT),
        unknown=sum(v.verdict == UNKNOWN for v in verdicts),
        findings=(*outcome.general, *gather(verdicts)),
        partitions=partitions,
        weight_bytes=weights,
        cached_bytes=outcome.cached_bytes
        or tuple(int(weights * ratio) for ratio in row.cached_per_byte),
        memory=outcome.memory or row.memory,
    )


def _with_layers(
    verdicts: Sequence[Verdict], ops: Sequence[Op]
) -> list[Verdict]:
    """Adds the layers that the operations of the main graph come from."""
    main = [op for op in ops if not op.subgraph]
    layers = outermost_layers(
        ("".join(op.output_names[:1]), op.input_tensors, op.output_tensors)
        for op in main
    )
    places = {op.index: layer for op, layer in zip(main, layers)}
    return [
        verdict
        if verdict.subgraph
        else dataclasses.replace(verdict, layer=places[verdict.index])
        for verdict in verdicts
    ]


def _find_compiler(target: str, compile_it: bool | None) -> str | None:
    """Returns the compiler to run, if there is one to run."""
    if compile_it and target != "edgetpu":
        raise ValueError(
            "`compile_it` is for target='edgetpu', the only one with a "
            f"compiler. Received: target={target!r}"
        )
    if compile_it is False or target != "edgetpu":
        return None
    program = compiler.find()
    if compile_it and program is None:
        raise ValueError(
            "`compile_it=True` needs `edgetpu_compiler` on the PATH, and there "
            "is none."
        )
    return program


def _by_runtime(inspection: "Inspection") -> _Outcome:
    measured = delegates.measure(inspection.path)
    return _Outcome(
        f"measured with {measured.runtime} on this machine",
        _measured(inspection.ops, measured),
        measured.error,
        partitions=measured.partitions,
    )


def _by_rules(inspection: "Inspection", row: Target) -> _Outcome:
    refused, general = _loads(inspection, row)
    basis = f"{row.basis}, compiler not run" if row.one_part else row.basis
    return _Outcome(basis, _predicted(inspection.ops, row), refused, general)


def _by_compiler(
    inspection: "Inspection", row: Target, program: str
) -> _Outcome:
    log = compiler.run(program, inspection.path)
    verdicts, general = _compiled(_predicted(inspection.ops, row), log)
    cached, memory = (), ()
    if log.cached is not None:
        cached = (log.cached, log.cached)
        memory = (log.cached + (log.remaining or 0),) * 2
    return _Outcome(
        f"compiled by edgetpu_compiler {log.version}",
        verdicts,
        log.error,
        general,
        log.subgraphs,
        cached,
        memory,
    )


def _loads(inspection: "Inspection", row: Target) -> tuple[str, list[Finding]]:
    """Tells why a target refuses the file as a whole, if it does."""
    found = []
    if row.needs_static and inspection.dynamic_tensors:
        found.append(
            (
                f"{len(inspection.dynamic_tensors)} tensors have a size that "
                "is known only at run time",
                "export the model with batch 1 and a fixed size, as "
                "`convert` does",
            )
        )
    for tensor in (*inspection.inputs, *inspection.outputs):
        if row.io_dtypes and tensor.dtype not in row.io_dtypes:
            found.append(
                (
                    f"{tensor.name} is {tensor.dtype}",
                    f"use input_dtype={row.io_dtypes[0]!r}",
                )
            )
    newer = {
        f"{op.name} version {op.version}"
        for op in inspection.ops
        if op.version > row.max_versions.get(op.name, op.version)
    }
    needs = inspection.min_runtime_version
    if newer or (row.max_runtime and needs > row.max_runtime):
        limit = ".".join(map(str, row.max_runtime))
        names = ", ".join(sorted(newer)) or f"TFLite {inspection.min_runtime}"
        found.append(
            (
                f"it needs {names}, and the target reads TFLite {limit}",
                "convert with `keras_mobilevit.tflite.convert` and "
                "precision='int8', which keeps to old versions",
            )
        )
    findings = [
        Finding(MAPS_NOT, reason, row.source, remedy, {}, None)
        for reason, remedy in found
    ]
    return "; ".join(reason for reason, _ in found), findings


def _predicted(ops: Sequence[Op], row: Target) -> list[Verdict]:
    """The verdicts by the rules of a target."""
    verdicts, fate, written = [], {}, set()
    for op in ops:
        reads = [
            tensor
            for tensor, size in zip(op.input_tensors, op.constant_bytes)
            if not size
        ]
        verdict = _alone(op, row)
        if row.one_part and not op.subgraph:
            behind = {fate.get(tensor) for tensor in reads}
            if verdict.verdict != MAPS_NOT and MAPS_NOT in behind:
                verdict = _after(verdict, MAPS_NOT)
            elif verdict.verdict == MAPS and UNKNOWN in behind:
                verdict = _after(verdict, UNKNOWN)
            # A QUANTIZE of the input itself stays before the part.
            is_border = op.name == "QUANTIZE" and written.isdisjoint(reads)
            if not is_border:
                fate.update(dict.fromkeys(op.output_tensors, verdict.verdict))
            written.update(op.output_tensors)
        verdicts.append(verdict)
    return verdicts


def _after(verdict: Verdict, fate: str) -> Verdict:
    before = {
        MAPS_NOT: "one that does not map",
        UNKNOWN: "one of which nobody knows whether it maps",
    }[fate]
    return dataclasses.replace(
        verdict,
        verdict=fate,
        reason=f"it comes after {before}, and the target runs one part of "
        "the graph, from the input on",
        source="Google's description of the Edge TPU compiler",
        remedy="",
    )


def _alone(op: Op, row: Target) -> Verdict:
    """The verdict on an operation whatever comes before it."""

    def verdict(fate, reason="", source=row.source, remedy=""):
        return Verdict(
            op.subgraph, op.index, op.name, fate, reason, source, remedy
        )

    if row.basis == targets.NO_CLAIM:
        return verdict(UNKNOWN, "no claim is made for this target")
    if op.subgraph:
        return verdict(UNKNOWN, "it is in a subgraph besides the main one", "")
    if op.is_custom:
        return verdict(
            MAPS_NOT, "it is a custom operation", remedy="use layers of Keras"
        )
    if op.name in row.refused:
        return verdict(
            MAPS_NOT, "it is not supported", remedy=row.refused[op.name]
        )
    if op.name not in row.ops:
        if row.lists_all:
            return verdict(MAPS_NOT, "it is not supported")
        return verdict(UNKNOWN, "no source covers it")
    broken = None
    for limit in (*row.limits, *row.ops[op.name]):
        try:
            holds = limit.holds(op)
        except IndexError:
            # Damaged files hold operations without the inputs they need.
            return verdict(MAPS_NOT, "it lacks inputs", "")
        if holds is False:
            broken = limit, MAPS_NOT
            break
        if holds is None and broken is None:
            broken = limit, UNKNOWN
    if broken:
        limit, fate = broken
        reason = f"it needs {limit.text}"
        return verdict(fate, reason, limit.source, limit.remedy)
    return verdict(MAPS)


def _measured(ops: Sequence[Op], measured: delegates.Measured) -> list[Verdict]:
    """The verdicts of the installed runtime."""
    verdicts = []
    for op in ops:
        own = (op.subgraph, op.index, op.name)
        if op.subgraph:
            reason = "only the main graph was run"
            verdicts.append(Verdict(*own, UNKNOWN, reason, measured.runtime))
        elif op.index in measured.inside:
            verdicts.append(Verdict(*own, MAPS, "", measured.runtime))
        else:
            # Reading and writing variables has one end only.
            ends = op.input_dtypes[:1] + op.output_dtypes[:1]
            reason = (
                f"XNNPACK leaves it, {' to '.join(ends)}, to the other kernels"
            )
            verdicts.append(
                Verdict(
                    *own, MAPS_NOT, reason, measured.runtime, _cpu_remedy(op)
                )
            )
    return verdicts


def _cpu_remedy(op: Op) -> str:
    if op.is_float:
        return ""
    if op.name == "QUANTIZE":
        return "little to win; input_dtype='float32' avoids those at the ends"
    return "use precision='int8_mixed', which computes it in float"


def _compiled(
    verdicts: Sequence[Verdict], log: compiler.Log
) -> tuple[list[Verdict], list[Finding]]:
    """Puts what the compiler did in the place of what was predicted.

    Its log counts operations by name and does not tell which they are. Since
    it maps from the input on, the first of a name are taken as those that
    map; the others get the statuses in the order of the log.
    """
    source = f"edgetpu_compiler {log.version}"
    statuses = collections.defaultdict(list)
    for name, number, status in log.rows:
        place = 0 if status == compiler.MAPPED else len(statuses[name])
        statuses[name][place:place] = [status] * number
    found, wrong = [], collections.Counter()
    for verdict in verdicts:
        # The log calls each custom operation CUSTOM.
        name = verdict.name if statuses[verdict.name] else "CUSTOM"
        status = statuses[name].pop(0) if statuses[name] else None
        if status is None:
            reason = "the compiler's log does not list it"
            found.append(
                dataclasses.replace(
                    verdict, verdict=UNKNOWN, reason=reason, source=source
                )
            )
            continue
        fate = MAPS if status == compiler.MAPPED else MAPS_NOT
        if verdict.verdict not in (fate, UNKNOWN):
            wrong[verdict.name] += 1
        reason = "" if fate == MAPS else status
        remedy = verdict.remedy if verdict.verdict == fate else ""
        found.append(
            dataclasses.replace(
                verdict,
                verdict=fate,
                reason=reason,
                source=source,
                remedy=remedy,
            )
        )
    general = []
    if wrong and not log.error:
        reason = "the compiler did otherwise than the rules predict"
        general.append(Finding("note", reason, source, "", dict(wrong), None))
    return found, general
