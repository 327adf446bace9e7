"""score, cautions, compare, report: what is made of measurements."""

import json
import math
import re

import click
import msgspec
import numpy as np
import pytest
from conftest import ROOT
from samples import ENERGY, RECORD, drifting, latency_with, with_outcome

from edgecap import stats
from edgecap.analysis.compare import compare
from edgecap.analysis.metrics import SCORES, verdict
from edgecap.analysis.outcomes import has_failure
from edgecap.analysis.score import score
from edgecap.analysis.warnings import cautions
from edgecap.analysis.warnings.setup import cache_bytes_per_token
from edgecap.errors import UsageError
from edgecap.pipeline.judging import judge
from edgecap.record import (
    Absent,
    Conditions,
    Estimate,
    Failure,
    Placement,
    ProviderShare,
    SweepPoint,
    Throughput,
    Window,
)
from edgecap.report.data import medians, record_values
from edgecap.report.terminal.comparison import comparison
from edgecap.report.terminal.details import details
from edgecap.report.terminal.summary import summary


def test_scores_by_hand():
    cell = with_outcome(RECORD.cells[0], energy=ENERGY)
    found = score(cell.outcome, RECORD.flops, bias_bits=-1.0)
    gain = cell.outcome.compression.gain_bits_per_token
    seconds, joules = medians(cell)["decode_s"].value, 20 / 500
    assert found.information_capacity.value == pytest.approx(
        (gain - 1) / math.log2(RECORD.flops.per_token)
    )
    assert found.time_capacity.value == pytest.approx((gain - 1) / math.log2(seconds * 1e12))
    assert found.energy_capacity.value == pytest.approx((gain - 1) / math.log2(joules * 1e12))
    middle = (math.log2(seconds * 1e12) + math.log2(joules * 1e12)) / 2
    assert found.hardware_capacity.value == pytest.approx((gain - 1) / middle)
    assert found.gain_bits_per_s.value == pytest.approx(gain / seconds)
    assert found.gain_bits_per_j.value == pytest.approx(gain / joules)


def test_on_the_reference_machine_all_capacities_agree():
    """1 TFLOP/s at 1 W at full utilisation: t = N / 1e12 s, E = N / 1e12 J."""
    cell = RECORD.cells[0]
    n = RECORD.flops.per_token
    decode = msgspec.structs.replace(
        cell.outcome.latency.decode, samples_s=(n / 1e12,) * 8, rounds=tuple(range(8))
    )
    window = Window(joules=n / 1e12, seconds=n / 1e12, tokens=1)
    measured = msgspec.structs.replace(
        cell.outcome,
        latency=msgspec.structs.replace(cell.outcome.latency, decode=decode),
        energy=msgspec.structs.replace(ENERGY, decode=(window,) * 3),
    )
    found = score(measured, RECORD.flops, 0.0)
    values = [
        getattr(found, f"{k}_capacity").value for k in ("information", "time", "energy", "hardware")
    ]
    assert values == pytest.approx([values[0]] * 4)


def test_without_energy_its_scores_are_absent_with_the_reason():
    found = score(RECORD.cells[0].outcome, RECORD.flops, 0.0)
    assert "no RAPL counter" in found.energy_capacity.reason
    assert "no RAPL counter" in found.hardware_capacity.reason
    assert isinstance(found.time_capacity, Estimate)
    without = score(RECORD.cells[0].outcome, Absent(reason="no config"), 0.0)
    assert without.information_capacity.reason == "no config"


def test_stored_scores_can_be_recomputed():
    for cell in RECORD.cells:
        if not isinstance(cell.outcome, Failure):
            ratio = cell.score.roofline_ratio
            again = score(cell.outcome, RECORD.flops, RECORD.corpus.bias_bits, ratio)
            for name in SCORES:
                if not name.startswith("effective"):  # of a text without a law
                    assert getattr(again, name) == getattr(cell.score, name)


@pytest.mark.parametrize(
    ("low", "value", "high", "less", "expected"),
    [
        (0.90, 0.92, 0.94, True, "better"),
        (0.90, 0.92, 0.94, False, "worse"),
        (1.06, 1.10, 1.20, True, "worse"),
        (0.98, 1.01, 1.04, True, "same"),
        (0.90, 1.00, 1.10, True, "unknown"),
        (1.01, 1.04, 1.08, True, "unknown"),
        (None, 2.0, None, True, "worse"),
        (None, 1.0, None, True, "same"),
        (None, 1.1, None, True, "unknown"),
        (None, 0.5, None, True, "better"),
    ],
)
def test_verdicts(low, value, high, less, expected):
    assert verdict(Estimate(value=value, low=low, high=high), less, 0.05) == expected


def by_metric(found):
    return {d.metric: d for d in found.differences}


def test_a_cell_against_itself_is_the_same():
    found = by_metric(compare([RECORD, RECORD])[0])
    assert {d.verdict for d in found.values()} == {"same"}
    assert found["bits_per_byte"].ratio == Estimate(value=1.0, low=1.0, high=1.0)


def test_int8_is_faster_and_a_little_less_exact():
    found = {c.candidate: by_metric(c) for c in compare([RECORD], "precision=fp32")}
    assert found["int8d"]["decode_s"].verdict == "better"
    assert found["int8d"]["decode_s"].ratio.value == pytest.approx(0.5)
    assert found["int8d"]["bits_per_byte"].verdict == "worse"


def test_other_text_gives_no_verdict():
    other = msgspec.structs.replace(
        RECORD, corpus=msgspec.structs.replace(RECORD.corpus, sha256="other")
    )
    found = compare([RECORD, other])[0]
    assert "corpus differs" in [m.split(":")[0] for m in found.mismatches]
    assert by_metric(found)["bits_per_byte"].verdict == "unknown"
    assert by_metric(found)["information_capacity"].verdict == "unknown"
    assert by_metric(found)["decode_s"].verdict == "same"


def test_what_differs_is_named():
    machine = msgspec.structs.replace(RECORD.machine, name="other", versions={"onnxruntime": "2"})
    found = compare([RECORD, msgspec.structs.replace(RECORD, machine=machine)])[0]
    machine, versions = found.mismatches
    assert machine == f"machine differs: {RECORD.machine.name} against other"
    assert versions.startswith("set of library versions differs: ") and "onnxruntime" in versions


def test_another_bias_or_prompt_gives_no_verdict_on_what_depends_on_it():
    biased = msgspec.structs.replace(
        RECORD, corpus=msgspec.structs.replace(RECORD.corpus, bias_bits=5.0)
    )
    assert by_metric(compare([RECORD, biased])[0])["information_capacity"].verdict == "unknown"
    latency = RECORD.cells[0].outcome.latency
    shorter = msgspec.structs.replace(
        latency, prefill=msgspec.structs.replace(latency.prefill, tokens=8)
    )
    other = msgspec.structs.replace(RECORD, cells=(with_outcome(RECORD.cells[0], latency=shorter),))
    found = compare([RECORD, other])[0]
    assert found.mismatches == ("prompt length differs: 64 against 8",)
    assert by_metric(found)["prefill_s"].verdict == "unknown"
    assert by_metric(found)["decode_s"].verdict == "same"


def test_drifting_rounds_widen_the_margin():
    latency = RECORD.cells[0].outcome.latency
    wild = msgspec.structs.replace(
        latency.decode, samples_s=(0.003, 0.004, 0.005, 0.006) * 4, rounds=tuple(range(16))
    )
    noisy = with_outcome(RECORD.cells[0], latency=msgspec.structs.replace(latency, decode=wild))
    found = by_metric(compare([RECORD, msgspec.structs.replace(RECORD, cells=(noisy,))])[0])[
        "decode_s"
    ]
    assert found.margin > 0.2
    assert found.verdict != "worse"


def test_the_baseline_is_in_the_first_record():
    without = msgspec.structs.replace(RECORD, cells=RECORD.cells[2:])
    with pytest.raises(UsageError, match="no measured cell matches"):
        compare([without, RECORD], "precision=fp16")


@pytest.mark.parametrize("baseline", ["precision=fp17", "colour=red", "fp16"])
def test_baselines_that_do_not_exist(baseline):
    with pytest.raises(UsageError, match="baseline"):
        compare([RECORD], baseline)


def test_nothing_to_compare():
    failed = msgspec.structs.replace(
        RECORD.cells[0], outcome=Failure(stage="s", error="E", message="m")
    )
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([msgspec.structs.replace(RECORD, cells=(failed,))])


# --- cautions ---------------------------------------------------------------------------------


def test_a_quick_record_advises_a_full_run_where_precision_lacks():
    latency = msgspec.structs.replace(RECORD.cells[0].outcome.latency, limit_reached=True)
    short = with_outcome(RECORD.cells[0], latency=latency)
    full = msgspec.structs.replace(RECORD, cells=(short,))
    quick = msgspec.structs.replace(full, spec=msgspec.structs.replace(full.spec, quick=True))
    for record, leaves_out in ((full, False), (quick, True)):
        advice = {c.code: c.advice for c in judge(record, short, None, 1).cautions}
        for code in ("few-rounds", "few-documents"):
            assert ("leave out --quick" in advice[code]) == leaves_out
        assert "raise --limit" in advice["few-rounds"]


def codes(record=RECORD, cell=None, cells=1, **machine):
    cell = cell or record.cells[0]
    found = msgspec.structs.replace(record.machine, **machine) if machine else record.machine
    return {
        c.code
        for c in cautions(found, record.source, cell.graph, cell.provider, cell.outcome, cells)
    }


def test_cautions_of_the_machine():
    assert {"battery", "governor", "other-load"} <= codes(
        power_source="battery", governor="powersave", load_average=5.0
    )
    assert not {"battery", "governor", "other-load"} & codes(
        power_source="mains", governor="performance", load_average=0.0
    )


def test_cautions_of_the_graph():
    fp16 = msgspec.structs.replace(
        RECORD.cells[0].graph, precision="fp16", divergence_bits=0.5, bytes=10**12
    )
    cell = msgspec.structs.replace(RECORD.cells[0], graph=fp16)
    assert {"fp16-emulated", "divergent", "graph-too-large"} <= codes(cell=cell, flags=("avx2",))
    assert "fp16-emulated" not in codes(cell=cell, flags=("avx512_fp16",))
    int8 = msgspec.structs.replace(
        RECORD.cells[0], graph=msgspec.structs.replace(fp16, precision="int8")
    )
    assert "no-int8-dot-product" in codes(cell=int8, flags=("avx2",))
    assert "no-int8-dot-product" not in codes(cell=int8, flags=("avx512_vnni",))


def test_cautions_of_the_measurement():
    assert {"few-documents", "one-after-another"} <= codes(cells=2)
    latency = RECORD.cells[0].outcome.latency
    wild = msgspec.structs.replace(
        latency.decode, samples_s=(1.0, 2.0, 3.0, 4.0), rounds=(0, 1, 2, 3)
    )
    cell = with_outcome(
        RECORD.cells[0], latency=msgspec.structs.replace(latency, decode=wild, limit_reached=True)
    )
    assert {"noisy", "few-rounds"} <= codes(cell=cell)
    drifting = with_outcome(
        RECORD.cells[0], energy=msgspec.structs.replace(ENERGY, idle_w=(1.0, 9.0))
    )
    assert "idle-drift" in codes(cell=drifting)


# --- report -----------------------------------------------------------------------------------


def text_of(text):
    return click.unstyle(text) + "\n"


def goldens():
    return {
        "show": text_of(summary(RECORD)),
        "details": text_of(details(RECORD)),
        "compare": "\n".join(text_of(comparison(c)) for c in compare([RECORD])),
    }


@pytest.mark.parametrize("name", ["show", "details", "compare"])
def test_reports_have_not_changed(name):
    """Goldens: look at the difference, and write the new text into tests/data if it is better."""
    assert goldens()[name] == (ROOT / "tests" / "data" / f"{name}-1.txt").read_text()


def test_tables_fit_eighty_columns():
    slow = msgspec.structs.replace(
        with_outcome(RECORD.cells[0], energy=ENERGY), provider="tensorrt"
    )
    many = msgspec.structs.replace(RECORD, cells=(*RECORD.cells, slow, slow, slow))
    assert "J/token" in text_of(details(many, 80))
    for record in (RECORD, many):
        text = text_of(details(record, 80))
        assert max(len(line) for line in text.splitlines()) <= 80
        assert "…" not in text


def test_hostile_names_are_printed_as_they_are():
    odd = msgspec.structs.replace(
        RECORD, source=msgspec.structs.replace(RECORD.source, name="[red]x[/red]")
    )
    assert "[red]x[/red]" in text_of(details(odd))
    worse = msgspec.structs.replace(
        RECORD, source=msgspec.structs.replace(RECORD.source, name="a\x1b[2Jb\u202ec")
    )
    assert "a?[2Jb?c" in text_of(details(worse))


def test_json_has_medians_with_intervals():
    values = record_values(RECORD)
    found = values["cells"][0]["medians"]
    assert found["decode_s"]["value"] == pytest.approx(0.004)
    assert found["decode_tokens_per_s"]["value"] == pytest.approx(250)
    assert found["decode_j"]["kind"] == "absent"
    assert json.loads(msgspec.json.encode(compare([RECORD])))[0]["differences"][0]["verdict"]
    assert not re.search(r": (NaN|-?Infinity)", json.dumps(values))


@pytest.mark.parametrize("changes", [{"protocol": "paper"}, {"stride": 64}])
def test_another_way_of_scoring_gives_no_verdict(changes):
    cell = RECORD.cells[0]
    text = msgspec.structs.replace(cell.outcome.compression, **changes)
    outcome = msgspec.structs.replace(cell.outcome, compression=text)
    other = msgspec.structs.replace(RECORD, cells=(msgspec.structs.replace(cell, outcome=outcome),))
    found = compare([RECORD, other])[0]
    assert by_metric(found)["bits_per_byte"].verdict == "unknown"
    assert by_metric(found)["time_capacity"].verdict == "unknown"


# --- rounds in pairs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.0, "same"), (1.1, "worse"), (0.9, "better"), (1.02, "same")]
)
def test_a_drift_that_both_share_does_not_blur_the_verdict(ratio, verdict):
    (found,) = compare([drifting(ratio, True)])
    decode = next(d for d in found.differences if d.metric == "decode_s")
    assert (decode.verdict, decode.ratio.value) == (verdict, pytest.approx(ratio))
    assert not found.one_after_another
    (apart,) = compare([drifting(ratio, False)])
    assert next(d for d in apart.differences if d.metric == "decode_s").verdict in (
        "same",
        "unknown",
    )
    assert apart.one_after_another


def test_a_process_that_was_stopped_and_a_slow_first_round_are_seen():
    base = RECORD.cells[0].outcome.latency
    rounds = tuple(n for n in range(8) for _ in range(4))

    def with_samples(samples):
        decode = msgspec.structs.replace(base.decode, samples_s=tuple(samples), rounds=rounds)
        latency = msgspec.structs.replace(base, decode=decode)
        return codes(cell=with_outcome(RECORD.cells[0], latency=latency))

    even = [0.004] * 32
    assert not {"interrupted", "slow-first-round"} & with_samples(even)
    assert "interrupted" in with_samples([*even[:-1], 5.0])
    assert "slow-first-round" in with_samples([0.006] * 4 + even[4:])


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        (Conditions(steal_share=0.05), "steal"),
        (Conditions(other_load=0.3), "other-load-meanwhile"),
        (Conditions(slept_s=30.0), "slept"),
        (Conditions(clock_step_s=-3600.0), "clock-step"),
        (Conditions(frequencies_hz=(3e9, 2.7e9)), "frequency"),
        (Conditions(throttle_events=2), "throttled"),
        (Conditions(quota_waits=14, quota_wait_s=0.6), "cpu-quota-throttled"),
    ],
)
def test_what_went_on_meanwhile_is_a_caution(conditions, code):
    assert code in codes(cell=latency_with(conditions=conditions))
    assert code not in codes(
        cell=latency_with(
            conditions=Conditions(
                frequencies_hz=(3e9, 2.95e9), throttle_events=0, slept_s=0.0, clock_step_s=0.1
            )
        )
    )


def test_more_threads_than_the_quota_of_the_container_are_a_caution():
    cell = latency_with(conditions=Conditions(quota_waits=0), threads=2)
    for quota, warns in ((None, False), (2.0, False), (4.0, False), (1.5, True), (0.5, True)):
        assert ("threads-above-quota" in codes(cell=cell, cpu_quota=quota)) is warns
        assert "cpu-quota-throttled" not in codes(cell=cell, cpu_quota=quota)


def test_the_load_before_the_run_is_told_only_where_none_was_measured_meanwhile():
    """Before a second model, or a second cell of a sweep, it is the load of the one before."""
    measured = latency_with(conditions=Conditions(other_load=0.01))
    assert "other-load" not in codes(cell=measured, load_average=5.0)
    assert "other-load" in codes(cell=latency_with(conditions=Conditions()), load_average=5.0)
    untimed = with_outcome(RECORD.cells[0], latency=Absent(reason="failed"))
    assert "other-load" in codes(cell=untimed, load_average=5.0)


def test_two_heaps_of_samples_are_seen():
    rng = np.random.default_rng(0)
    quick, slow = rng.normal(1.0, 0.02, 60), rng.normal(1.4, 0.03, 30)
    found = stats.modes([*quick, *slow])
    assert found.fast == pytest.approx(1.0, abs=0.02)
    assert found.slow == pytest.approx(1.4, abs=0.03)
    assert found.share_slow == pytest.approx(1 / 3, abs=0.05)
    for usual in (
        rng.normal(1, 0.1, 200),
        rng.uniform(1, 2, 200),
        rng.lognormal(0, 0.3, 200),
        [1.0] * 50,
        [1, 2] * 5,
    ):
        assert stats.modes(list(usual)) is None
    samples = tuple(float(x) for x in (*quick, *slow))
    decode = msgspec.structs.replace(
        RECORD.cells[0].outcome.latency.decode,
        samples_s=samples,
        rounds=tuple(i % 9 for i in range(90)),
    )
    assert "bimodal" in codes(cell=latency_with(decode=decode))


def test_a_cache_that_is_larger_than_the_config_says():
    architecture = RECORD.source.architecture
    expected = cache_bytes_per_token(architecture, half=False)
    assert expected == 4 * sum(
        x.count * 2 * x.attention.kv_heads * x.attention.head_dim for x in architecture.layers
    )
    assert cache_bytes_per_token(architecture, half=True) == expected / 2
    memory = RECORD.cells[0].outcome.memory
    for bytes_, seen in ((expected, False), (3 * expected, True)):
        changed = msgspec.structs.replace(memory, kv_bytes_per_token=int(bytes_))
        assert (
            "kv-cache-size" in codes(cell=with_outcome(RECORD.cells[0], memory=changed))
        ) is seen
    half = msgspec.structs.replace(memory, kv_bytes_per_token=int(expected / 2))
    cell = with_outcome(RECORD.cells[0], memory=half)
    graph = msgspec.structs.replace(cell.graph, precision="int8", arithmetic="fp16")
    assert "kv-cache-size" in codes(cell=cell)
    assert "kv-cache-size" not in codes(cell=msgspec.structs.replace(cell, graph=graph))


def test_layers_that_stayed_plain_are_a_caution():
    graph = msgspec.structs.replace(
        RECORD.cells[0].graph, unfused=("layer 0: a bias", "layer 1: a bias")
    )
    gap = Absent(reason="no time", failed=True)
    for change in ({"fidelity_bits": gap}, {"fidelity": {"beyond 4096 positions": gap}}):
        unknown = msgspec.structs.replace(RECORD.cells[0].graph, **change)
        assert "not-compared" in codes(cell=msgspec.structs.replace(RECORD.cells[0], graph=unknown))
    assert "not-compared" not in codes(cell=RECORD.cells[0])
    assert "not-fused" in codes(cell=msgspec.structs.replace(RECORD.cells[0], graph=graph))


@pytest.mark.parametrize(
    ("streams", "overhead_s", "told"), [(4, 1e-3, True), (4, 1e-5, False), (1, 1e-3, False)]
)
def test_streams_that_wait_for_one_interpreter(streams, overhead_s, told):
    point = Throughput(
        batch=1,
        streams=streams,
        prefill_tokens=100,
        context=50.0,
        steps=100,
        prefill_s=(1.0,),
        decode_s=(0.5,),
        step_s=(0.005,),
    )
    assert (
        "streams-bound" in codes(cell=latency_with(throughput=(point,), overhead_s=overhead_s))
    ) == told


@pytest.mark.parametrize(
    ("usual", "longest", "told"),
    [(0.7, 4.7, True), (0.7, 1.2, False), (0.006, 3.0, True), (2.0, 4.5, False)],
)
def test_a_stop_is_seen_in_slow_steps_too(usual, longest, told):
    prefill = RECORD.cells[0].outcome.latency.prefill
    for samples in ((usual, longest), (*[usual] * 20, longest)):
        odd = msgspec.structs.replace(prefill, samples_s=samples, rounds=tuple(range(len(samples))))
        assert ("interrupted" in codes(cell=latency_with(prefill=odd))) == told


def test_contexts_that_failed_or_were_timed_cold_are_told():
    points = (
        SweepPoint(context=128, prefill_s=(1.0,), decode_s=(0.1,), cold=True),
        SweepPoint(context=4096, prefill_s=(), decode_s=(), failed="MemoryError: no room"),
    )
    cell = latency_with(sweep=points)
    assert {"context-failed", "cold-contexts"} <= codes(cell=cell)
    assert has_failure(cell)
    assert not has_failure(RECORD.cells[0])
    assert "4096" in text_of(details(msgspec.structs.replace(RECORD, cells=(cell,))))


@pytest.mark.parametrize(("share", "told"), [(0.003, False), (0.023, True)])
def test_what_ran_elsewhere_is_told(share, told):
    placed = Placement(
        by_provider={
            "cuda": ProviderShare(nodes=90, time_share=1 - share),
            "cpu": ProviderShare(nodes=7, time_share=share),
        }
    )
    found = cautions(
        RECORD.machine,
        RECORD.source,
        RECORD.cells[0].graph,
        "cuda:device_id=1",
        msgspec.structs.replace(RECORD.cells[0].outcome, placement=placed),
        1,
    )
    assert ("fallback" in {c.code for c in found}) == told


def test_throughput_and_overhead_are_shown():
    point = Throughput(
        batch=4,
        streams=2,
        prefill_tokens=100,
        context=50.0,
        steps=10,
        prefill_s=(2.0,),
        decode_s=(0.5,),
        step_s=(0.05,),
    )
    failed = Failure(stage="throughput", error="Fail", message="batch 64, streams 2: no memory")
    cell = latency_with(throughput=(point, failed), overhead_s=1.0)
    text = text_of(details(msgspec.structs.replace(RECORD, cells=(cell,))))
    assert re.search(r"4 +2 +400 +160 +50 ms", text)
    assert "batch 64, streams 2: no memory" in text
    assert "1 s of each decoded token is Python and runtime overhead" in text
