"""Decoded tokens beside texts that are read in one run: divergence, its cause, scores, advice."""

from types import SimpleNamespace

import click
import msgspec
import numpy as np
import onnx
import pytest
from conftest import REFERENCE
from exports import stepped
from fakes import FakeClock, FakeEngine
from onnx import TensorProto, helper, numpy_helper
from samples import RECORD

from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.closer import closer_variant
from edgecap.analysis.compare import compare
from edgecap.analysis.decoding import decoding_shift, worst_divergence
from edgecap.analysis.metrics import quantities
from edgecap.analysis.verdict import decide, differences_of
from edgecap.graph.activations import watch_products
from edgecap.graph.variants import CLOSER, NAMES, Form, make_variant
from edgecap.meters import divergence
from edgecap.pipeline import cells, judging, timing
from edgecap.pipeline.worker.handlers import score as handler
from edgecap.pipeline.worker.steps import ReferenceGraph, ScoringPlan, Session
from edgecap.record import Absent, Estimate, Failure, Law, WidestActivation, divergence_shift
from edgecap.report.terminal.comparison import comparison
from edgecap.report.terminal.details import details
from edgecap.report.terminal.summary import summary
from edgecap.runtime.engine import OrtEngine
from edgecap.spec import PRECISIONS, CellSpec
from edgecap.text.corpus import read_corpus

replace = msgspec.structs.replace
WIDEST = WidestActivation(
    node="/model/layers.11/mlp/down_proj/MatMul", largest=3053.4, typical=1.506, position=0
)


# --- the meter --------------------------------------------------------------------------------


class Peaked(FakeEngine):
    """Is sure of token 0 with probability `p` in one run, and `decoded` behind a cache."""

    def __init__(self, p, decoded):
        super().__init__(FakeClock())
        self.row, self.decoded_row = map(self._row, (p, decoded))
        self.asked = []

    def _row(self, p):
        return np.log2(np.array([p] + [(1 - p) / (self.vocabulary - 1)] * (self.vocabulary - 1)))

    def log_probabilities(self, inputs):
        rows = np.tile(self.row, (len(inputs), 1))
        rows[0] = self._row(0.5)  # the first position is worse, and is not decoded
        return rows

    def log_probabilities_after(self, past, ids):
        self.asked.append((past.tolist(), ids.tolist()))
        return [self.decoded_row[None]] * len(ids)


def kl(p, q):
    return float((2**p * (p - q)).sum())


def test_the_last_quarter_is_decoded_and_compared_with_the_same_tokens():
    reference, variant = Peaked(0.9, 0.1), Peaked(0.7, 0.8)  # the reference is not decoded
    found = divergence.measure_divergence(reference, variant, [np.arange(9), np.arange(3)])
    assert variant.asked == [([0, 1, 2, 3, 4, 5, 6], [7, 8])] and not reference.asked
    assert found.decoded_bits == pytest.approx(kl(reference.row, variant.decoded_row))
    assert found.prefilled_bits == pytest.approx(kl(reference.row, variant.row))
    assert found.bits < found.prefilled_bits


@pytest.mark.parametrize(("tokens", "cache"), [(3, True), (64, False)])
def test_nothing_is_decoded_without_a_cache_or_from_short_texts(tokens, cache):
    variant = Peaked(0.7, 0.8)
    variant.has_cache = cache
    found = divergence.measure_divergence(Peaked(0.9, 0.9), variant, [np.arange(tokens)])
    assert (found.decoded_bits, found.prefilled_bits, variant.asked) == (None, None, [])


def test_decoding_nan_is_garbage():
    variant = Peaked(0.9, 0.9)
    variant.decoded_row = np.full(16, np.nan)
    with pytest.raises(divergence.Garbage):
        divergence.measure_divergence(Peaked(0.9, 0.9), variant, [np.arange(8)])


@pytest.mark.parametrize(
    ("prefilled", "decoded", "shift"),
    [
        (0.75, 0.18, -0.57),
        (0.01, 0.05, 0.04),
        (0.001, 0.009, 0.0),  # less than 0.01 bits apart
        (0.5, 0.6, 0.0),  # less than a quarter
        (0.6, 0.5, 0.0),
        (0.5, Absent(reason="x"), 0.0),
    ],
)
def test_a_difference_counts_from_a_hundredth_and_a_quarter_on(prefilled, decoded, shift):
    assert divergence_shift(prefilled, decoded) == pytest.approx(shift)


# --- the widest activation --------------------------------------------------------------------


def two_products(path, opset):
    """A graph with two products: the second reads squares, behind a matrix without a good name."""
    rng = np.random.default_rng(1)
    weights = {n: rng.normal(size=(4, 4)).astype(np.float32) for n in ("first", "onnx::MatMul_7")}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "first"], ["y"], name="/layers.0/up/MatMul"),
        helper.make_node("MatMul", ["x", "x"], ["unused"], name="no stored matrix"),
        helper.make_node("Mul", ["x", "x"], ["/layers.0/square"]),
        helper.make_node(
            "MatMul", ["/layers.0/square", "onnx::MatMul_7"], ["z"], name="onnx::MatMul_7/MatMul"
        ),
        helper.make_node("Add", ["y", "z"], ["logits"]),
    ]
    table = np.array([[1, -1, 0.5, 0], [2, 1, 0, -3], [1, 0, -40, 1], [1, 1, 1, 2]], np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "n"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "n", 4])],
        [numpy_helper.from_array(w, n) for n, w in {**weights, "table": table}.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path
    )


@pytest.mark.parametrize("opset", [14, 18])
def test_the_widest_activation_is_found_in_the_graph(tmp_path, opset):
    two_products(tmp_path / "model.onnx", opset)
    watched = watch_products(tmp_path / "model.onnx")
    assert watched.nodes == ("/layers.0/up/MatMul", "/layers.0/square")
    engine = OrtEngine(tmp_path / "model.onnx", "cpu", 1, scoring=watched.graph)
    found = divergence.find_widest(engine, watched.nodes, np.array([0, 1, 2, 1]))
    assert found == WidestActivation(
        node="/layers.0/square", largest=1600.0, typical=9.0, position=2
    )


# --- a real model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fp32(cache):
    return stepped(REFERENCE, cache)[0] / "model.onnx"


def test_fp32_predicts_the_same_when_it_decodes(fp32):
    """So the divergence of decoded tokens may be taken from fp32's predictions in one run."""
    engine = OrtEngine(fp32, "cpu", 1)
    ids = np.random.default_rng(2).integers(0, engine.vocabulary, 64)
    together = engine.log_probabilities(ids)[-16:]
    one_by_one = engine.log_probabilities_after(ids[:-16], ids[-16:])
    assert divergence.max_divergence([together], [np.concatenate(one_by_one)]) < 1e-5


@pytest.mark.export
def test_the_step_tells_what_decoding_costs_and_why(fp32, tmp_path, monkeypatch):
    make_variant(fp32, Form("int8d"), tmp_path)
    session = Session(
        graph=str(tmp_path / "model.onnx"),
        provider="cpu",
        threads=1,
        vocabulary=8192,
        head_dim=None,
    )
    corpus = read_corpus("edgecap-mixed")
    plan = ScoringPlan(
        session=session,
        tokenizer=str(REFERENCE),
        corpus=corpus,
        protocol="exact",
        context=64,
        stride=None,
    )
    step = SimpleNamespace(plan=plan, reference=ReferenceGraph(graph=str(fp32)), samples=4)
    found = handler._divergence(step, lambda *_: None)
    assert found["widest_activation"] is None  # the two agree: fp32 is not run again
    assert 0 < found["decoded_divergence_bits"] < 0.1 > found["prefilled_divergence_bits"] > 0
    monkeypatch.setattr(handler, "divergence_shift", lambda *bits: 1.0)
    widest = handler._divergence(step, lambda *_: None)["widest_activation"]
    assert widest.largest > widest.typical > 0 and "MatMul" in widest.node
    assert 0 <= widest.position < 64
    assert set(found) <= set(cells.MeasuredCell.__struct_fields__)


# --- scores and cautions ----------------------------------------------------------------------


def variant_of(
    cell, precision="int8d", prefilled=0.75, decoded=0.18, nbytes=136_000_000, **changes
):
    graph = replace(
        RECORD.cells[0].graph,
        precision=precision,
        bytes=nbytes,
        divergence_bits=changes.pop("bits", prefilled),
        decoded_divergence_bits=decoded,
        prefilled_divergence_bits=prefilled,
        widest_activation=WIDEST,
    )
    return replace(cell, precision=precision, graph=graph, **changes)


def gaining(cell, bits):
    text = replace(cell.outcome.compression, gain_bits_per_token=bits)
    return replace(cell, outcome=replace(cell.outcome, compression=text))


def record_of(*cells):
    return replace(RECORD, cells=cells)


FP32 = gaining(
    replace(RECORD.cells[0], graph=replace(RECORD.cells[0].graph, bytes=540_000_000)), 6.0
)
WORSE = gaining(variant_of(RECORD.cells[0]), 5.5)


def test_decoding_gains_what_fp32_gains_less_its_own_divergence():
    record = record_of(FP32, WORSE)
    assert decoding_shift(record, WORSE) == pytest.approx(5.5 - (6.0 - 0.18))
    assert decoding_shift(record, FP32) == 0.0
    judged = judging.judge(record, WORSE, None, 2)
    plain = judging.judge(record, variant_of(WORSE, decoded=0.7), None, 2)
    ratio = judged.score.time_capacity.value / plain.score.time_capacity.value
    bias = record.corpus.bias_bits
    assert ratio == pytest.approx((6.0 - 0.18 + bias) / (5.5 + bias))
    assert judged.score.information_capacity == plain.score.information_capacity
    assert judged.score.gain_bits_per_s.value > plain.score.gain_bits_per_s.value
    assert judged.score.formula == plain.score.formula == "edgecap-2"


def test_the_verdict_counts_decoded_tokens_as_compare_does():
    """fp32 stays in reach of each pair: the bits of a text may be far from those of decoding."""
    record = record_of(FP32, WORSE)
    (decision,) = decide(cell_views([record]))
    (compared,) = compare([record])
    assert decision.options[0].against == differences_of(compared)
    assert decision.options[0].against.ratio("effective_flops_per_s") is not None


def in_turns(cell):
    latency = replace(cell.outcome.latency, in_turns=True)
    return replace(cell, outcome=replace(cell.outcome, latency=latency))


def pending(record):
    """The record before its cells are timed and judged."""
    waiting = [
        replace(c, score=judging.PENDING, outcome=replace(c.outcome, latency=cells.LATENCY_PENDING))
        for c in record.cells
    ]
    return replace(record, cells=tuple(waiting))


def law_at(record, gain):
    """A law of which the record's FLOPs are the middle, where `gain` bits are gained."""
    flops, slope = record.flops.per_token, Estimate(value=0.9, low=0.8, high=1.0)
    return Law(
        models="a to b",
        slope=slope,
        bias_bits=slope.value * np.log2(flops) - gain,
        smallest_flops=flops / 1.5,
        largest_flops=flops * 1.5,
    )


@pytest.mark.parametrize("bits", [5.5, 3.0])  # 3 bits less lie outside the law: all slopes count
def test_rounds_end_by_the_gain_that_the_verdict_takes(bits):
    """At equal seconds the ratio of a decision is that gain, of decoded tokens."""
    record = record_of(in_turns(FP32), in_turns(gaining(WORSE, bits)))
    record = replace(record, corpus=replace(record.corpus, law=law_at(record, 6.0)))
    (decision,) = decide(cell_views([record]))
    text, decoded = map(
        decision.options[0].against.ratio, ("effective_flops", "effective_flops_per_s")
    )
    cpu = [CellSpec(cell.precision, cell.provider) for cell in record.cells]
    baseline, gain = timing._gains(pending(record), dict.fromkeys(cpu))
    assert baseline is None
    assert gain == pytest.approx((decoded.low, decoded.high))
    assert gain != pytest.approx((text.low, text.high))


def test_draws_of_scores_have_the_same_shift_as_the_stored_ones():
    record = record_of(FP32, WORSE)
    judged = judging.judge(record, WORSE, None, 2)
    drawn = quantities(record_of(FP32, judged), judged, seed=5)["time_capacity"][0]
    assert drawn == pytest.approx(judged.score.time_capacity.value)


def test_without_fp32_decoding_is_not_made_better():
    assert decoding_shift(record_of(WORSE), WORSE) == 0.0
    bad = variant_of(WORSE, prefilled=0.05, decoded=0.4)
    assert decoding_shift(record_of(bad), bad) == pytest.approx(0.35)
    (caution,) = [
        c
        for c in judging.judge(record_of(WORSE), WORSE, None, 1).cautions
        if c.code == "decoded-not-scored"
    ]
    assert "too few: measure fp32" in caution.advice


def test_a_bad_decoder_is_divergent_although_it_reads_well():
    bad = variant_of(WORSE, prefilled=0.05, decoded=0.4)
    assert worst_divergence(bad.graph) == 0.4
    messages = [c.message for c in judging.judge(record_of(FP32, bad), bad, None, 2).cautions]
    assert "predictions diverge from fp32 by 0.40 bits per token" in messages


def test_both_divergences_are_shown_with_the_cause_everywhere():
    record = record_of(FP32, judging.judge(record_of(FP32, WORSE), WORSE, None, 2))
    told = (
        "int8d: 0.18 bits from fp32 if decoded, 0.75 prefilled: layers.11/mlp/down_proj reads "
        "3,053, typically 1.51; scores "
    )
    scored = "scores of decoding take 5.82 bits gained a token, 5.50 were measured on the text"
    compared = comparison(compare([record])[0], 400)
    for text in (details(record, 400), compared):
        assert told in " ".join(click.unstyle(text).split())
    assert "scores take the former" in " ".join(click.unstyle(summary(record)).split())
    assert scored in details(record, 400) and scored in compared
    alike = variant_of(WORSE, decoded=0.7)
    whole = details(record_of(FP32, judging.judge(record_of(FP32, alike), alike, None, 2)), 400)
    assert "if decoded" not in whole


# --- the variant that would be better ----------------------------------------------------------


def alike(precision, bits, nbytes):
    return variant_of(RECORD.cells[0], precision, bits, bits, nbytes)


def test_a_measured_variant_of_that_size_is_named_with_its_numbers():
    own = alike("int8d", 0.9, 100)
    rest = (alike("fp16", 0.001, 200), alike("int8w", 0.008, 125), alike("int8s", 0.3, 90))
    record = record_of(FP32, own, *rest)
    assert closer_variant(record, own, CLOSER) == "use int8w: 0.008 bits, 125 B"
    assert "int8," in closer_variant(record_of(FP32, own, rest[0]), own, CLOSER)


def test_the_table_of_recipes_names_one_where_none_was_measured():
    own = alike("int4b128", 0.9, 100)
    assert closer_variant(record_of(own), own, CLOSER).startswith("use int4, which")
    tried = record_of(own, alike("int4", 0.8, 100))  # is there, and no closer
    assert closer_variant(tried, own, CLOSER).startswith("use int8, which")
    larger = record_of(own, alike("int4", 0.8, 100), alike("int8", 0.01, 200))
    assert closer_variant(larger, own, CLOSER) == "use int8: 0.01 bits, 200 B"
    failed = replace(own, precision="int4", outcome=Failure(stage="x", error="y", message="z"))
    assert closer_variant(record_of(own, failed), own, CLOSER).startswith("use int8, which")
    best = alike("bf16", 0.9, 100)
    assert closer_variant(record_of(best), best, CLOSER) == ""


def test_the_table_ends_and_knows_every_variant():
    assert set(CLOSER) | {"bf16"} == set(NAMES)
    assert {name for name in CLOSER.values()} <= set(PRECISIONS)
    for name in CLOSER:
        seen = [name]
        while name in CLOSER:
            name = CLOSER[name]
            assert name not in seen
            seen.append(name)


def test_the_failure_of_garbage_names_another_variant():
    garbage = Failure(stage="divergence", error="Garbage", message="NaN or infinity")
    assert cells._with_closer(garbage, "fp16").message == "NaN or infinity; try bf16"
    assert cells._with_closer(garbage, "bf16") == garbage
    other = Failure(stage="divergence", error="MemoryError", message="out of memory")
    assert cells._with_closer(other, "fp16") == other


def test_the_caution_on_a_divergent_variant_names_the_better_one():
    near = alike("int8w", 0.008, 150_000_000)
    record = record_of(FP32, WORSE, near)
    (caution,) = [
        c for c in judging.judge(record, WORSE, None, 3).cautions if c.code == "divergent"
    ]
    assert caution.advice == "use int8w: 0.008 bits, 150 MB"
