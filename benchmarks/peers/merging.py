"""Merge the record of a run with that of earlier runs, and note what stems from which.

`run` of a record is when its last run began. `kept` has the run of each contestant that was not in
the last one, for `times` (speed, memory and checks, measured together) and each quality. `runs` has
the versions of the packages in those runs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from peers.verdicts import FP32

Record = dict[str, Any]
TIMES, QUALITIES = "times", ("quality", "moved_quality")
UNDATED = "an undated run"  # of a record from before runs had dates


def merge(before: Record, record: Record) -> Record:
    """Return the record with what an earlier one has of contestants and parts that were not run.

    Nothing is kept of a contestant whose file has another size now, and nothing at all if that of
    fp32 has. Times stay if plan and machine are the same, qualities if the sample is.
    """
    files, earlier = record["files"], before.get("files", {})
    names = {n: size for n, size in earlier.items() if files.get(n, size) == size}
    if FP32 not in names:
        return _without_empty(record)
    parts = _times(before, record, names) | {
        q: _quality(q, before, record, names) for q in QUALITIES
    }
    merged = {**before, **record, "files": {**files, **names}, **parts}
    return _without_empty({**merged, **_origins(before, record, merged)})


def measured(record: Record, part: str) -> set[str]:
    """Return the contestants of a part: `times`, or a quality."""
    if part != TIMES:
        return set(record.get(part, {}).get("of", {}))
    return set(record.get("footprints", {})).union(*record.get("seconds", {}).values())


def _times(before: Record, record: Record, names: Collection[str]) -> Record:
    if any(before.get(key) != record.get(key) for key in ("plan", "machine")):
        names = ()
    old, new = before.get("seconds", {}), record.get("seconds", {})
    checks = [{row["name"]: row for row in r.get("agreements", ())} for r in (before, record)]
    return {
        "seconds": {t: _joined(old.get(t, {}), new.get(t, {}), names) for t in {**new, **old}},
        "agreements": list(_joined(*checks, names).values()),
        **{
            key: _joined(before.get(key, {}), record.get(key, {}), names)
            for key in ("footprints", "settings")
        },
    }


def _quality(part: str, before: Record, record: Record, names: Collection[str]) -> Record:
    """Join qualities on the same sample, by what both records say of it."""
    old, new = before.get(part, {}), record.get(part, {})
    of_sample = (old.keys() & new.keys()) - {"of"}
    same = all(old[key] == new[key] for key in of_sample)
    if new and part == "moved_quality":
        same = same and before.get("moved_seed") == record.get("moved_seed")
    if not same:
        return new
    of = _joined(old.get("of", {}), new.get("of", {}), names)
    return {**old, **new, "of": of} if of else {}


def _joined(old: Record, new: Record, names: Collection[str]) -> Record:
    return {**new, **{n: v for n, v in old.items() if n in names and n not in new}}


def _origins(before: Record, record: Record, merged: Record) -> Record:
    """Return the run of each kept contestant, by part, and the versions of those runs."""
    last, earlier = before.get("run", UNDATED), before.get("kept", {})
    kept = {
        part: {n: earlier.get(part, {}).get(n, last) for n in sorted(names)}
        for part in (TIMES, *QUALITIES)
        if (names := measured(merged, part) - measured(record, part))
    }
    versions = {**before.get("runs", {}), last: before.get("versions", {})}
    named = {run for runs in kept.values() for run in runs.values()}
    return {"kept": kept, "runs": {run: v for run, v in versions.items() if v and run in named}}


def _without_empty(record: Record) -> Record:
    return {key: value for key, value in record.items() if value}
