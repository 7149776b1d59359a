"""The report on what a target runs of a file."""

import collections
import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence

from keras_mobilevit import reports

MAPS, MAPS_NOT, UNKNOWN = "maps", "does not map", "unknown"
_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a target runs one operation.

    Attributes:
        subgraph, index, name: the operation, as in `Inspection.ops`.
        verdict: `"maps"`, `"does not map"` or `"unknown"`.
        reason: why; `""` for what maps.
        source: who says so.
        remedy: what can be done; `""` for nothing.
        layer: the outermost layer of the model that it was made from, as the
            names in the file tell; `"all"` if they do not, `""` outside the
            main graph.
    """

    subgraph: int
    index: int
    name: str
    verdict: str
    reason: str = ""
    source: str = ""
    remedy: str = ""
    layer: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Operations with the same verdict for the same reason.

    Attributes:
        verdict, reason, source, remedy: as in `Verdict`.
        ops: `{op name: count}`.
        first: the index of the first of them; `None` if the reason is one
            of the whole file.
        layer: that of the first of them.
    """

    verdict: str
    reason: str
    source: str
    remedy: str
    ops: dict[str, int]
    first: int | None
    layer: str = ""


@dataclasses.dataclass(frozen=True)
class Check(reports.Report):
    """What `Inspection.check` found.

    Attributes:
        path: the file.
        target: one of `targets.TARGETS` or `targets.READERS`.
        description: the target in words.
        basis: how the verdicts came about: measured, predicted, compiled.
        refused: why the target does not even load the file; `""` if it does.
        verdicts: one for each operation, in the order of `Inspection.ops`.
        total: operations in the file.
        mapped: how many of them the target runs.
        cpu_ops: `{op name: count}` of those that are left on the CPU; for the
            target `"cpu"` those outside XNNPACK.
        unknown: how many no source tells of.
        findings: the verdicts that are not "maps", by reason, and what is
            wrong with the file as a whole.
        partitions: in how many parts the target runs the file; `None` where
            that was not measured.
        weight_bytes: of the operations that map.
        cached_bytes: the least and the most bytes that they take on the chip;
            `()` for a target without such memory.
        memory: bytes on the chip, the least and the most that was seen.
    """

    path: str
    target: str
    description: str
    basis: str
    refused: str
    verdicts: tuple[Verdict, ...]
    total: int
    mapped: int
    cpu_ops: dict[str, int]
    unknown: int
    findings: tuple[Finding, ...]
    partitions: int | None
    weight_bytes: int
    cached_bytes: tuple[int, ...]
    memory: tuple[int, ...]

    @property
    def fits(self) -> bool | None:
        """Whether the weights that map fit on the chip.

        `None` if that depends on the device, or if it has no such memory.
        """
        if not self.memory:
            return None
        if self.cached_bytes[-1] <= self.memory[0]:
            return True
        return False if self.cached_bytes[0] > self.memory[-1] else None

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        """Of each layer of the model, how many operations map, and of how many.

        The layers are the outermost, in the order of the file.
        """
        found = {}
        for verdict in self.verdicts:
            if verdict.layer:
                mapped, total = found.get(verdict.layer, (0, 0))
                maps = verdict.verdict == MAPS
                found[verdict.layer] = (mapped + maps, total + 1)
        return found

    def __str__(self) -> str:
        share = f" ({self.mapped / self.total:.1%})" if self.total else ""
        facts = [
            ("target", f"{self.target}: {self.description}"),
            ("basis", self.basis),
            ("refused", self.refused or None),
            ("operations", self.total),
            ("mapped", f"{self.mapped}{share}"),
            ("left on the CPU", sum(self.cpu_ops.values())),
            ("unknown", self.unknown),
            ("partitions", self.partitions),
        ]
        if 0 < self.mapped < self.total and len(self.layers) > 1:
            counts = self.layers.items()
            facts += [
                (
                    "layers that map",
                    _names(n for n, (k, m) in counts if k == m),
                ),
                ("in part", _names(n for n, (k, m) in counts if 0 < k < m)),
                ("not", _names(n for n, (k, m) in counts if not k)),
            ]
        if self.memory:
            facts += [
                ("bytes to keep on the chip", _span(self.cached_bytes)),
                ("memory on the chip", _span(self.memory)),
                ("fits", {True: "yes", False: "no", None: "-"}[self.fits]),
            ]
        parts = [reports.table((self.path, ""), facts)]
        if self.findings:
            parts.append(
                reports.table(
                    ("verdict", "operations", "why", "what to do"),
                    [
                        (f.verdict, _few(f), f.reason, f.remedy or None)
                        for f in self.findings
                    ],
                )
            )
            sources = dict.fromkeys(f.source for f in self.findings if f.source)
            parts.append("\n".join(f"source: {source}" for source in sources))
        return "\n\n".join(parts)


def gather(verdicts: Sequence[Verdict]) -> list[Finding]:
    """Returns the verdicts that are not "maps" by reason, first ones first."""
    groups = {}
    for verdict in verdicts:
        if verdict.verdict != MAPS:
            key = (
                verdict.verdict,
                verdict.reason,
                verdict.source,
                verdict.remedy,
            )
            groups.setdefault(key, []).append(verdict)
    return [
        Finding(
            *key,
            count(v.name for v in group),
            group[0].index,
            group[0].layer,
        )
        for key, group in groups.items()
    ]


def count(names: Iterable[str]) -> dict[str, int]:
    """Returns how often each name occurs, most frequent first."""
    return dict(collections.Counter(names).most_common())


def _few(finding: Finding) -> str:
    """The operations of a finding in a few words."""
    names = [f"{count} {name}" for name, count in finding.ops.items()]
    more = f", {len(names) - 3} kinds more" if len(names) > 3 else ""
    at = "" if finding.first is None else f" from #{finding.first}"
    at += f" in {finding.layer}" if finding.layer not in ("", "all") else ""
    return ", ".join(names[:3]) + more + at if names else "the file"


def _names(layers: Iterable[str]) -> str | None:
    """Layers in a line, the first of them if there are many."""
    layers = list(layers)
    more = f", {len(layers) - 30} more" if len(layers) > 30 else ""
    return ", ".join(layers[:30]) + more or None


def _span(span: tuple[int, ...]) -> str:
    texts = dict.fromkeys(f"{size / _MIB:.2f}" for size in span)
    return " to ".join(texts) + " MiB"
