"""Parse ONNX Runtime's own profile: which provider ran each node, and the time of each operator."""

from __future__ import annotations

import bisect
import math
from typing import Any, NamedTuple

from edgecap.provider_options import PROVIDERS
from edgecap.record import ProviderShare

Event = dict[str, Any]  # one entry of the profile's JSON: "ts" and "dur" in microseconds


class OperatorProfile(NamedTuple):
    """Nodes and share of operator time by provider; microseconds by operator for each run."""

    by_provider: dict[str, ProviderShare]
    runs: tuple[dict[str, float], ...]

    def shares(self, runs: slice) -> dict[str, float]:
        """Return the share of time of each operator over some of the runs, the largest first."""
        sums: dict[str, float] = {}
        for run in self.runs[runs]:
            for operator, microseconds in run.items():
                sums[operator] = sums.get(operator, 0.0) + microseconds
        total = sum(sums.values()) or 1.0
        return {o: s / total for o, s in sorted(sums.items(), key=lambda item: -item[1])}


def parse_operator_profile(events: list[Event]) -> OperatorProfile:
    """Sum up the events of a profile that covers one or more runs."""
    nodes = [e for e in events if e.get("cat") == "Node" and "provider" in e.get("args", {})]
    total = sum(e["dur"] for e in nodes) or 1
    names = {provider: name for name, provider in PROVIDERS.items()}
    shares: dict[str, ProviderShare] = {}
    for provider in sorted({e["args"]["provider"] for e in nodes}):
        own = [e for e in nodes if e["args"]["provider"] == provider]
        shares[names.get(provider, provider)] = ProviderShare(
            nodes=len({e["name"] for e in own}), time_share=sum(e["dur"] for e in own) / total
        )
    return OperatorProfile(shares, _times_by_run(events, nodes))


def _times_by_run(events: list[Event], nodes: list[Event]) -> tuple[dict[str, float], ...]:
    """Return microseconds by operator for each run, in order of time."""
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == "model_run")
    runs: list[dict[str, float]] = [{} for _ in spans]
    for event in nodes:
        index = bisect.bisect_right(spans, (event["ts"], math.inf)) - 1
        if index >= 0:
            operator = event["args"].get("op_name", event["name"])
            runs[index][operator] = runs[index].get(operator, 0.0) + event["dur"]
    return tuple(runs)
