"""What a report on a target says, and that its numbers agree."""

import json

MAPS, MAPS_NOT, UNKNOWN = "maps", "does not map", "unknown"


def verdicts(report):
    return [verdict.verdict for verdict in report.verdicts]


def adds_up(report):
    """The numbers of a report are those of its verdicts."""
    each = verdicts(report)
    assert report.total == len(each)
    assert report.mapped == each.count(MAPS)
    assert sum(report.cpu_ops.values()) == each.count(MAPS_NOT)
    assert report.unknown == each.count(UNKNOWN)
    counted = [f for f in report.findings if f.verdict != "note"]
    found = sum(sum(finding.ops.values()) for finding in counted)
    assert found == report.total - report.mapped
    for verdict in report.verdicts:
        assert (verdict.reason == "") == (verdict.verdict == MAPS)
    json.loads(report.to_json())
    assert str(report.mapped) in str(report)
    return report
