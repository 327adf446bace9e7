"""Predicting a size of a series: against classical regression, the published figure,
and made-up machines.
"""

import json
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import series
from boards import energy
from click.testing import CliRunner
from conftest import ROOT
from series import BASE, model, replace, text, timed

from edgecap.analysis import published
from edgecap.analysis.predicting import predict
from edgecap.analysis.predicting.bits import fit_law, law_half_width, predict_left_out
from edgecap.analysis.predicting.leave_one_out import half_width, leverage, student
from edgecap.analysis.predicting.steps import (
    StepSize,
    estimate_operators,
    fit_step_law,
    relative_half_width,
)
from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.model import flops
from edgecap.model.architecture import read_architecture
from edgecap.record import Absent, Caution, Estimate, Gpu, Measurement, Placement, ProviderShare
from edgecap.spec import PRECISIONS, TUNED
from edgecap.storage.records import load, save

# Root mean square and largest of the leave-one-out errors on the published figure, bits a token.
ERRORS = {
    "Qwen3": (0.054, 0.081),
    "Qwen1.5": (0.046, 0.070),
    "Llama-3": (0.149, 0.261),
    "InternLM2.5": (0.001, 0.001),
    "Gemma-3": (0.182, 0.267),
    "Hunyuan": (0.103, 0.161),
    "Ministral-3": (0.024, 0.035),
}
WIDTHS, BIGGER = (64, 96, 128, 192), 256


def joules(each):
    return energy(500 * each)


def law_series(
    bias=-12.0,
    capacity=0.4,
    widths=WIDTHS,
    efficiency=0.25,
    watts=None,
    noise=(0, 0, 0, 0),
    **changes,
):
    """A series that keeps the law but for `noise`, and reaches a share of its roofline."""
    records = []
    for n, hidden in enumerate(widths):
        work = math.log2(flops.count_flops(series.architecture(hidden), 1024, 512).per_token)
        made = model(f"w{hidden}", capacity * work - bias + noise[n], hidden=hidden, **changes)
        records.append(timed(made, efficiency, watts, joules))
    return records


def bigger(hidden=BIGGER, **changes):
    return read_architecture({**series.config(hidden), **changes})


# --- the numbers ------------------------------------------------------------------------------


def test_student_against_scipy():
    for free in (*range(1, 60), 100, 1000):
        assert student(free) == pytest.approx(scipy.stats.t.ppf(0.975, free), rel=1e-3)


def test_leaving_out_is_the_prediction_interval_of_regression():
    """Allen's identity: with leverage taken out,
    the errors of those left out are the residuals of the fit.
    """
    rng = np.random.default_rng(2)
    x = np.array([1.0, 2.0, 4.0, 5.0, 9.0])
    y = 3 + 2 * x + rng.normal(0, 0.5, 5)
    errors = []
    for i in range(5):
        slope, offset = np.polyfit(np.delete(x, i), np.delete(y, i), 1)
        errors.append(y[i] - slope * x[i] - offset)
    fit = scipy.stats.linregress(x, y)
    residuals = y - fit.slope * x - fit.intercept
    s = math.sqrt((residuals**2).sum() / 3)
    h = 1 / 5 + (12 - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    assert leverage(x, 12.0, 2) == pytest.approx(h)
    expected = scipy.stats.t.ppf(0.975, 3) * s * math.sqrt(1 + h)
    assert half_width(np.array(errors), x, 12.0, 2) == pytest.approx(expected, rel=1e-4)


def test_a_mean_alone():
    y = np.array([1.0, 2.0, 4.0])
    errors = np.array([y[i] - np.delete(y, i).mean() for i in range(3)])
    expected = scipy.stats.t.ppf(0.975, 2) * y.std(ddof=1) * math.sqrt(1 + 1 / 3)
    assert half_width(errors, y, 7.0, 1) == pytest.approx(expected, rel=1e-4)
    assert half_width(errors[:1], y[:1], 7.0, 1) is None


def test_too_few_to_leave_one_out():
    work, gains = np.array([21.0, 22.0]), np.array([18.0, 18.5])
    assert predict_left_out(work, gains) is None and law_half_width(work, gains, 23.0) is None
    assert (
        predict_left_out(work, gains, -12.0) is not None
        and law_half_width(work, gains, 23.0, -12.0) > 0
    )


@pytest.mark.parametrize("name", ERRORS)
def test_errors_on_the_published_series(name):
    points = published.published_series()[name]
    work = np.array([math.log2(p.flops_per_token) for p in points])
    gains = np.array([p.gain_bits_per_token for p in points])
    errors = predict_left_out(work, gains) - gains
    rms, largest = ERRORS[name]
    assert math.sqrt((errors**2).mean()) == pytest.approx(rms, abs=0.001)
    assert np.abs(errors).max() == pytest.approx(largest, abs=0.001)


def test_intervals_on_the_published_series_hold_what_they_say():
    inside = []
    for points in published.published_series().values():
        work = np.array([math.log2(p.flops_per_token) for p in points])
        gains = np.array([p.gain_bits_per_token for p in points])
        for i in range(len(points)) if len(points) > 3 else ():
            others = np.delete(work, i), np.delete(gains, i)
            inside.append(
                abs(fit_law(*others).gain(work[i]) - gains[i]) <= law_half_width(*others, work[i])
            )
    assert len(inside) == 25 and sum(inside) >= 23


# --- bits -------------------------------------------------------------------------------------


def test_a_series_that_keeps_the_law_is_predicted_exactly():
    found = predict(law_series(), bigger(), "bigger")
    work = math.log2(found.flops_per_token)
    gain = 0.4 * work + 12
    assert found.bias_bits == pytest.approx(-12, abs=1e-6)
    assert found.gain_bits_per_token.value == pytest.approx(gain)
    assert found.information_capacity.value == pytest.approx(0.4)
    assert found.nll_bits_per_token.value == pytest.approx(found.text_bits_per_token - gain)
    assert found.bits_per_byte.value == pytest.approx(
        8 * found.nll_bits_per_token.value / found.text_bits_per_token
    )
    assert found.law_bits == pytest.approx(0, abs=1e-6) and found.error_bits == pytest.approx(
        0, abs=1e-6
    )
    assert found.degrees == 2 and not found.cautions
    for value in (found.gain_bits_per_token, found.nll_bits_per_token, found.bits_per_byte):
        assert value.low < value.value < value.high
    assert found.parameters == flops.parameters(bigger()).total
    assert found.weight_bytes == flops.weight_bytes(bigger(), "fp32")


def test_noise_of_the_series_widens_the_interval():
    noisy = predict(law_series(noise=(0.1, -0.1, -0.1, 0.1)), bigger(), "bigger")
    calm = predict(law_series(noise=(0.01, -0.01, -0.01, 0.01)), bigger(), "bigger")
    assert noisy.law_bits > 5 * calm.law_bits
    widths = [f.nll_bits_per_token.high - f.nll_bits_per_token.low for f in (noisy, calm)]
    assert widths[0] > widths[1]
    assert noisy.nll_bits_per_token.high - noisy.nll_bits_per_token.value >= noisy.law_bits
    assert [round(one.error_bits, 3) != 0 for one in noisy.series] == [True] * 4


def test_two_records_leave_nothing_out_and_say_so():
    found = predict(law_series(widths=WIDTHS[:2]), bigger(), "bigger")
    assert found.law_bits is None and found.error_bits is None and found.degrees == 0
    assert [one.error_bits for one in found.series] == [None, None]
    assert any("2 records leave nothing to test the law with" in c for c in found.cautions)
    assert found.nll_bits_per_token.low is not None


def test_three_records_are_few():
    found = predict(law_series(widths=WIDTHS[:3], noise=(0.01, -0.01, 0.01)), bigger(), "bigger")
    assert found.degrees == 1 and any("3 records are few" in c for c in found.cautions)


def test_with_a_given_bias_one_record_is_enough():
    one = law_series(widths=WIDTHS[:1])
    with pytest.raises(UsageError, match="or --bias"):
        predict(one, bigger(), "bigger")
    found = predict(one, bigger(), "bigger", bias_bits=-12.0)
    assert found.information_capacity.value == pytest.approx(0.4) and not found.bias_fitted
    assert found.degrees == 0 and "1 record leaves" in found.cautions[0]
    assert predict(law_series(widths=WIDTHS[:2]), bigger(), "bigger", bias_bits=-12.0).degrees == 1


def test_bits_never_fall_below_none():
    found = predict(law_series(capacity=1.0, bias=0.0), bigger(2048), "bigger")
    assert found.nll_bits_per_token.low >= 0 and found.bits_per_byte.low >= 0


def test_cautions_of_other_sizes_and_vocabularies():
    far = predict(law_series(), bigger(1024), "far")
    assert any("times the FLOPs of the largest" in c for c in far.cautions)
    near = predict(law_series(), bigger(16), "small")
    assert any("of the smallest" in c for c in near.cautions)
    other = predict(law_series(), bigger(vocab_size=32000), "other")
    assert any("vocabulary of 32000" in c for c in other.cautions)
    strange = predict(
        law_series(),
        bigger(model_type="quite-new", architectures=["QuiteNewForCausalLM"]),
        "strange",
    )
    assert any("does not know this model type" in c for c in strange.cautions)


def test_one_document_has_the_interval_of_the_law():
    records = law_series(scored=text(documents=1), noise=(0.01, -0.01, -0.01, 0.01))
    found = predict(records, bigger(), "bigger")
    assert found.gain_bits_per_token.high - found.gain_bits_per_token.value == pytest.approx(
        found.law_bits
    )


# --- the device -------------------------------------------------------------------------------


def test_seconds_of_an_equally_efficient_series():
    found = predict(law_series(watts=10.0), bigger(), "bigger").device
    assert found.efficiency == pytest.approx(0.25)
    assert found.decode_s.value == pytest.approx(4 * found.attainable_s)
    assert found.decode_s.low == pytest.approx(found.decode_s.high)
    assert found.decode_j.value == pytest.approx(10 * found.decode_s.value, rel=1e-6)
    peak = BASE.peaks["cpu"]
    moved = flops.read_bytes(bigger(), "fp32") + 32 * flops.kv_bytes_per_token(bigger(), 4.0)
    assert found.attainable_s == pytest.approx(
        moved / max(b.read_bytes_per_s for b in peak.bandwidth)
    )
    assert (found.models, found.models_with_joules, found.prefill_tokens) == (4, 4, 64)


def test_an_uneven_series_has_a_wide_interval():
    records = [timed(r, e) for r, e in zip(law_series(), (0.2, 0.3, 0.25, 0.22), strict=True)]
    found = predict(records, bigger(), "bigger").device
    even = predict(law_series(), bigger(), "bigger").device
    assert (
        found.decode_s.low < 0.7 * found.decode_s.value
        and found.decode_s.high > 1.4 * found.decode_s.value
    )
    assert found.decode_s.low < even.decode_s.value < found.decode_s.high


def test_a_fixed_part_is_told_from_the_roofline():
    """Seconds of launches, the same for one depth, and a quarter of the peaks beyond them."""
    records = [launched(r, 5e-3) for r in law_series(watts=10.0)]
    found = predict(records, bigger(), "bigger").device
    assert found.starts_s == pytest.approx(5e-3) and found.efficiency == pytest.approx(0.25)
    assert found.decode_s.value == pytest.approx(5e-3 + 4 * found.attainable_s)
    assert found.decode_s.low == pytest.approx(found.decode_s.high)
    one = predict(records[:1], bigger(), "bigger", bias_bits=-12.0).device
    assert (
        one.starts_s == 0
        and one.decode_s.value > 3 * found.decode_s.value
        and one.decode_s.low is None
    )
    two = predict(records[:2], bigger(), "bigger").device
    assert two.decode_s.value == pytest.approx(found.decode_s.value) and two.decode_s.low is None


def launched(record, seconds):
    def later(phase):
        return replace(phase, samples_s=tuple(s + seconds for s in phase.samples_s))

    cells = []
    for cell in (c for c in record.cells if isinstance(c.outcome, Measurement)):
        latency = cell.outcome.latency
        latency = replace(latency, decode=later(latency.decode), prefill=later(latency.prefill))
        cells.append(replace(cell, outcome=replace(cell.outcome, latency=latency)))
    return replace(record, cells=tuple(cells))


def test_the_law_of_steps_is_regression_on_relative_errors():
    rng = np.random.default_rng(3)
    x = np.array([1.0, 2.0, 5.0, 9.0, 20.0])
    t = (3 + 2 * x) * (1 + rng.normal(0, 0.05, 5))
    n = np.array([4.0, 5.0, 5.0, 8.0, 9.0])
    rows = np.column_stack([n / t, x / t])
    (each, times), squares, *_ = np.linalg.lstsq(rows, np.ones(5), rcond=None)
    law = fit_step_law(StepSize(n, x), t)
    assert (float(law.each), float(law.times)) == (pytest.approx(each), pytest.approx(times))
    new = np.array([12.0, 40.0]) / (12 * each + 40 * times)
    spread = math.sqrt(float(squares[0]) / 3) * math.sqrt(
        1 + new @ np.linalg.inv(rows.T @ rows) @ new
    )
    at = StepSize(12.0, 40.0)
    assert relative_half_width(StepSize(n, x), t, at) == pytest.approx(
        scipy.stats.t.ppf(0.975, 3) * spread, rel=1e-4
    )
    many = fit_step_law(StepSize(n, x), np.stack([t, 2 * t]))
    assert many.each == pytest.approx([each, 2 * each])
    assert relative_half_width(StepSize(n[:2], x[:2]), t[:2], at) is None


@pytest.mark.parametrize(
    ("measured", "each", "times"),
    [
        ([1.0, 3.0, 9.0], 0.0, None),
        ([9.0, 8.0, 7.0], None, 0.0),
    ],  # steeper than the roofline; falling with size
)
def test_no_part_of_a_step_is_below_zero(measured, each, times):
    x, t = np.array([1.0, 2.0, 4.0]), np.array(measured)
    law, (a, r) = (
        fit_step_law(StepSize(np.ones(3), x), t),
        scipy.optimize.nnls(np.column_stack([1 / t, x / t]), np.ones(3))[0],
    )
    assert (float(law.each), float(law.times)) == (pytest.approx(a), pytest.approx(r))
    assert law.each == each or law.times == times


def test_sizes_in_one_proportion_have_the_multiple_alone():
    law = fit_step_law(StepSize(np.array([1.0, 3.0]), np.array([2.0, 6.0])), np.array([4.0, 12.0]))
    assert (float(law.each), float(law.times)) == (0.0, 2.0)


def test_operators_grow_with_the_layers():
    layers, operators = np.array([4, 5, 7]), np.array([88.0, 101.0, 127.0])
    assert estimate_operators(layers, operators, 48) == pytest.approx(36 + 13 * 48)
    assert estimate_operators(layers[:1], operators[:1], 8) == 176


def test_a_deep_model_starts_more_operators():
    """Launches alone: a model of the same width and eight times the layers takes nearly
    eight times as long.
    """
    records = [
        deeper(launched(r, 5e-3), layers)
        for r, layers in zip(law_series(), (4, 5, 6, 7), strict=True)
    ]
    shallow, deep = (predict(records, bigger(num_hidden_layers=n), "b").device for n in (4, 32))
    assert deep.operators == pytest.approx(36 + 13 * 32)
    assert 5 < deep.decode_s.value / shallow.decode_s.value < 8


def deeper(record, layers):
    """The record as of a graph of so many layers,
    whose operators each take a share of the launches.
    """
    shape = series.architecture(record.source.architecture.hidden, layers)
    share = (36 + 13 * layers) / (36 + 13 * 4)
    cells = []
    for cell in record.cells:
        placed = Placement(
            by_provider={cell.provider: ProviderShare(nodes=36 + 13 * layers, time_share=1.0)}
        )
        latency = cell.outcome.latency
        decode = replace(
            latency.decode, samples_s=tuple(s * share for s in latency.decode.samples_s)
        )
        latency = replace(latency, decode=decode)
        cells.append(
            replace(cell, outcome=replace(cell.outcome, placement=placed, latency=latency))
        )
    return replace(record, source=replace(record.source, architecture=shape), cells=tuple(cells))


def test_boards_of_two_kinds_predict_no_seconds():
    board = Gpu(name="A", driver="1", memory_bytes=1 << 34, users=0)
    records = [on_board(r, board) for r in law_series()]
    assert isinstance(predict(records, bigger(), "b").device.decode_s, Estimate)
    assert predict(records, bigger(), "b").device.machine == "Example + A"
    records[1] = on_board(records[1], replace(board, name="B"))
    assert "machine of w96" in predict(records, bigger(), "b").device.decode_s.reason


def on_board(record, board):
    cells = tuple(replace(c, provider="cuda") for c in record.cells)
    peaks = {"cuda": BASE.peaks["cpu"]}
    return replace(record, machine=replace(record.machine, gpus=(board,)), cells=cells, peaks=peaks)


def test_what_speaks_against_the_seconds_is_told():
    records = law_series()
    noisy = replace(records[2].cells[0], cautions=(Caution(code="noisy", message="m", advice="a"),))
    records[2] = replace(records[2], cells=(noisy, *records[2].cells[1:]))
    said = predict(records, bigger(8192, num_hidden_layers=64), "huge").cautions
    for word in (
        "64 layers, the series 4",
        "8192 numbers wide",
        "do not fit into the memory",
        "w128 is cautioned: noisy",
    ):
        assert any(word in c for c in said), (word, said)
    assert any(
        "w64 has this architecture" in c for c in predict(records, bigger(64), "again").cautions
    )


def test_an_interval_that_says_nothing_is_open_and_none_is_below_the_roofline():
    wild = [timed(r, e) for r, e in zip(law_series(), (0.9, 0.0001, 0.5, 0.001), strict=True)]
    assert predict(wild, bigger(), "b").device.decode_s.low is None
    near = [timed(r, e) for r, e in zip(law_series(), (0.9, 0.5, 0.95, 0.99), strict=True)]
    found = predict(near, bigger(), "b").device
    assert found.attainable_s <= found.decode_s.low


def test_an_encoder_decoder_is_refused(files, tmp_path):
    path = tmp_path / "t5.json"
    path.write_text(
        json.dumps({**series.config(BIGGER), "model_type": "t5", "is_encoder_decoder": True})
    )
    assert "encoder-decoder" in refused(*files, "--config", path)


def test_a_config_of_another_name_gives_its_own(files, config, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(config.read_text())
    assert run(*files, "--config", path).stdout.startswith("mine, predicted")


def test_bits_below_none_lie_in_their_interval():
    found = predict(law_series(capacity=1.0, bias=0.0), bigger(4096), "bigger").nll_bits_per_token
    assert found.low <= found.value <= found.high


def test_a_bias_that_no_token_carries_is_refused():
    for wrong in (1e300, float("nan")):
        with pytest.raises(UsageError, match="at most 1000"):
            predict(law_series(), bigger(), "b", bias_bits=wrong)


def test_a_real_record_predicts_itself():
    """What a config cannot do without is what the graph was counted to need,
    for every precision.
    """
    record = load(max((ROOT / "profiles" / "reference").glob("edgecap-ref-xs--*.json")))
    for cell in record.cells:
        found = predict(
            [record], record.source.architecture, "again", cell.precision, bias_bits=0.0
        )
        assert found.device.decode_s.value == pytest.approx(
            cell.roofline.decode.attainable_s / cell.roofline.decode.ratio.value, rel=0.01
        )
        assert found.device.prefill_s.value == pytest.approx(
            cell.roofline.prefill.attainable_s / cell.roofline.prefill.ratio.value, rel=0.05
        )
        text = cell.outcome.compression
        assert found.nll_bits_per_token.value == pytest.approx(text.nll_bits_per_token)
        assert found.bits_per_byte.value == pytest.approx(text.bits_per_byte)


def test_no_joules_without_a_counter():
    found = predict(law_series(), bigger(), "bigger").device
    assert isinstance(found.decode_s, Estimate)
    assert isinstance(found.decode_j, Absent) and "RAPL" in found.decode_j.reason
    assumed = [timed(r, 0.25, 10.0, lambda j: energy(500 * j, "assumed")) for r in law_series()]
    assert isinstance(predict(assumed, bigger(), "bigger").device.decode_j, Absent)


def unlike(record, **changes):
    return replace(record, machine=replace(record.machine, **changes))


def test_two_machines_predict_bits_and_no_seconds():
    records = law_series()
    records[1] = unlike(records[1], name="other")
    found = predict(records, bigger(), "bigger")
    assert (
        isinstance(found.device.decode_s, Absent)
        and "machine of w96" in found.device.decode_s.reason
    )
    assert isinstance(found.device.decode_j, Absent) and isinstance(found.device.efficiency, Absent)
    assert found.nll_bits_per_token.value > 0


def test_prompts_with_and_without_all_logits_predict_no_seconds():
    """Older records counted and computed the head at each position of a prompt."""
    records = law_series()
    counted, shape = records[1].flops, records[1].source.architecture
    each = flops.total(flops.prefill_parts(shape, counted.prefill_tokens, all_logits=True))
    records[1] = replace(records[1], flops=replace(counted, prefill=each))
    found = predict(records, bigger(), "bigger").device
    assert "the number of logits of a prompt of w96" in found.prefill_s.reason


def test_no_seconds_without_a_roofline():
    records = [
        replace(
            r, cells=tuple(replace(c, roofline=Absent(reason="no peaks here")) for c in r.cells)
        )
        for r in law_series()
    ]
    found = predict(records, bigger(), "bigger").device
    assert found.decode_s == Absent(reason="no peaks here") and found.prefill_s == found.decode_s
    assert found.models == 0


def test_bytes_that_a_step_reads():
    tied, untied = bigger(), bigger(tie_word_embeddings=False)
    assert (
        flops.read_bytes(tied, "fp32")
        == flops.weight_bytes(tied, "fp32")
        == flops.read_bytes(untied, "fp32")
    )
    experts = {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
    }
    mixture = bigger(
        model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], head_dim=64, **experts
    )
    assert flops.read_bytes(mixture, "fp32") < 0.75 * flops.read_bytes(mixture, "fp32", 4)
    assert flops.read_bytes(mixture, "fp32", 4) == flops.read_bytes(mixture, "fp32", 512)
    assert flops.read_bytes(mixture, "fp32", 512) == flops.weight_bytes(mixture, "fp32")


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != TUNED])
def test_every_variant_is_stored_in_some_precision(precision):
    assert flops.weight_bytes(bigger(), flops.storage_precision(precision)) > 0


# --- what is refused --------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    paths = []
    for record in law_series(noise=(0.01, -0.01, -0.01, 0.01)):
        paths.append(tmp_path / f"{record.source.name}.json")
        save(record, paths[-1])
    return [str(p) for p in paths]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "bigger" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(series.config(BIGGER)))
    return path


def run(*words):
    return CliRunner().invoke(cli, ["predict", *map(str, words)])


def refused(*words):
    done = run(*words)
    assert isinstance(done.exception, UsageError), done.output
    assert done.exception.exit_code == 2 and "\n" not in str(done.exception)
    return str(done.exception)


def test_predict_prints_bits_seconds_and_errors(files, config):
    done = run(*files, "--config", config)
    assert done.exit_code == 0, done.output
    for word in (
        "bigger, predicted",
        "bits per byte",
        "95 % interval",
        "decode, a token",
        "no decode energy",
    ):
        assert word in done.stdout
    assert (
        "root mean square of the errors" in done.stdout
        and max(map(len, done.stdout.splitlines())) <= 100
    )


def test_predict_as_json(files, config):
    done = run(*files, "--config", config.parent, "--json", "--precision", "int8d")
    found = json.loads(done.stdout)
    assert found["precision"] == "int8d" and found["device"]["decode_j"]["kind"] == "absent"
    assert found["bits_per_byte"]["low"] < found["bits_per_byte"]["value"]


def test_two_records_in_words(files, config):
    assert "not enough records to leave one out" in run(*files[:2], "--config", config).stdout
    assert "none" in run(files[0], "--config", config, "--bias", "-12").stdout


def test_one_record_is_refused(files, config):
    assert "this is one: w64" in refused(files[0], "--config", config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"max_position_embeddings": 256}, "bigger has 256 positions"),
        ({"model_type": "bert"}, "an encoder"),
    ],
)
def test_a_config_that_says_too_little_is_refused(files, config, changes, said):
    fields = {**series.config(BIGGER), **changes}
    config.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    assert said in refused(*files, "--config", config)


def test_no_config_at_all(files, tmp_path):
    (tmp_path / "config.json").write_text("[]")
    refused(*files, "--config", tmp_path / "config.json")
    refused(*files, "--config", tmp_path / "not-there.json")
    assert run(*files).exit_code == 2


def test_records_of_two_texts_are_refused(files, config, tmp_path):
    other = model(
        "other", 22.0, hidden=160, corpus=replace(BASE.corpus, name="other", sha256="f" * 64)
    )
    save(other, tmp_path / "other.json")
    said = refused(*files, tmp_path / "other.json", "--config", config)
    assert "corpus of other (other" in said and "that of w64 (six" in said


def test_what_no_cell_has_is_refused(files, config):
    assert "no fp8 cell" in refused(*files, "--config", config, "--precision", "fp8")
    assert "on cuda" in refused(*files, "--config", config, "--provider", "cuda")
    assert "at most 1000" in refused(*files, "--config", config, "--bias", "nan")
