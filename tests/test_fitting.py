"""Bias fitting: against scipy, the published figure, made-up series, and cards beside a corpus."""

import csv
import importlib.util
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from click.testing import CliRunner
from conftest import ROOT
from series import BASE, model, replace, text

from edgecap import stats
from edgecap.analysis import published
from edgecap.analysis.fitting import fit, make_card
from edgecap.analysis.fitting.bias import (
    best_bias,
    capacities,
    is_determined,
    kendall_tau,
    leave_one_out_biases,
    limit_spread,
    ranks,
    spread,
)
from edgecap.analysis.score import score
from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.record import Absent, Failure, Measurement
from edgecap.storage.records import load, save
from edgecap.sweep.fingerprint import corpus_fingerprint
from edgecap.text import bias_card
from edgecap.text.corpus import corpus_info, read_corpus

# What makes the published series most constant, bits a token: the issue says -22 to -27.
OPTIMA = {
    "Qwen3": -24.78,
    "Qwen1.5": -25.29,
    "Llama-3": -24.25,
    "InternLM2.5": -22.71,
    "GLM-4": -26.89,
    "Gemma-3": -22.09,
    "Hunyuan": -23.56,
    "Ministral-3": -23.67,
}


def three(gains=(20.0, 20.6, 21.0), works=(21.0, 22.0, 23.0), **changes):
    names = "abcdefg"
    return [
        model(names[n], g, w, **changes) for n, (g, w) in enumerate(zip(gains, works, strict=True))
    ]


def series_of(points):
    return np.array([math.log2(p.flops_per_token) for p in points]), np.array(
        [p.gain_bits_per_token for p in points]
    )


def by_scipy(work, gains, low=-60.0, high=20.0):
    grid = np.linspace(low, high, 4001)
    near = grid[np.argmin([spread((gains + b) / work) for b in grid])]
    found = scipy.optimize.minimize_scalar(
        lambda b: spread((gains + b) / work),
        bounds=(near - 0.1, near + 0.1),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return found.x


# --- the numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_closed_form_is_the_minimum_that_scipy_finds(seed):
    rng = np.random.default_rng(seed)
    work = np.sort(rng.uniform(20, 38, 3 + seed))
    gains = 0.4 * work + 15 + rng.normal(0, 0.1, len(work))
    assert best_bias(work, gains) == pytest.approx(by_scipy(work, gains), abs=1e-4)


def test_of_many_at_once():
    work = np.array([21.0, 22.0, 24.0])
    gains = np.random.default_rng(1).normal([18, 18.5, 19.5], 0.05, (5, 3))
    assert best_bias(work, gains) == pytest.approx([float(best_bias(work, g)) for g in gains])
    assert capacities(work, gains, best_bias(work, gains)).shape == (5, 3)


def test_a_law_is_found_again():
    work = np.array([20.0, 23.0, 25.0, 30.0])
    gains = 0.2 * work + 24.0
    assert best_bias(work, gains) == pytest.approx(-24.0)
    assert spread(capacities(work, gains, -24.0)) == pytest.approx(0, abs=1e-12)
    assert leave_one_out_biases(work, gains) == pytest.approx([-24.0] * 4)


def test_nothing_is_best_where_all_gain_the_same_or_are_of_one_size():
    assert np.isnan(best_bias(np.array([20.0, 20.0]), np.array([18.0, 19.0])))
    assert np.isnan(best_bias(np.array([20.0, 22.0]), np.array([18.0, 18.0])))
    falling = np.array([19.0, 18.9, 18.8])
    assert not is_determined(
        np.array([20.0, 22.0, 24.0]), falling, best_bias(np.array([20.0, 22.0, 24.0]), falling)
    )


def test_an_endless_bias_is_no_solution():
    work, gains = np.array([21.0, 22.0, 24.0]), np.array([18.0, 18.4, 19.4])
    assert spread(capacities(work, gains, 1e9)) == pytest.approx(limit_spread(work), rel=1e-6)
    assert spread(capacities(work, gains, float(best_bias(work, gains)))) < limit_spread(work) / 10


def test_ranks_and_their_agreement_against_scipy():
    rng = np.random.default_rng(3)
    one, other = rng.random(12), rng.random(12)
    assert kendall_tau(one.tolist(), other.tolist()) == pytest.approx(
        scipy.stats.kendalltau(one, other).statistic
    )
    assert ranks(one.tolist()) == scipy.stats.rankdata(-one, "min").tolist()
    assert ranks([2.0, 3.0, 2.0]) == [2, 1, 2]
    assert kendall_tau([1.0], [2.0]) == 1.0


# --- the published figure ---------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMA)
def test_the_published_series_want_minus_22_to_minus_27(name):
    work, gains = series_of(published.published_series()[name])
    found = float(best_bias(work, gains))
    assert found == pytest.approx(OPTIMA[name], abs=0.01)
    assert found == pytest.approx(by_scipy(work, gains), abs=1e-3)
    assert -27 < found < -22


def test_the_table_of_other_hands_says_the_same(shared):
    with (shared / "expected" / "paper_figure.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    for name, points in published.published_series().items():
        own = [rows[p.model] for p in points]
        work = np.array([math.log2(float(r["flops_per_token"])) for r in own])
        gains = np.array([float(r["information_capacity"]) for r in own]) * work + 24
        assert float(best_bias(work, gains)) == pytest.approx(OPTIMA[name], abs=0.01)


def test_the_bias_turns_published_ranks_round():
    work, gains = series_of(published.read_published())
    old, new = (capacities(work, gains, b).tolist() for b in (-24.0, -30.0))
    assert kendall_tau(old, new) == pytest.approx(scipy.stats.kendalltau(old, new).statistic)
    assert kendall_tau(old, new) < 0.8


def test_the_pages_numbers_are_those_of_the_script():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "scripts" / "pages.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.reference_fit(script.reference_records("fp32", "cpu"))
    pages = script.pages(found)
    assert "-26.9 (exact)" in pages["docs/fit.md"]["published-bias"]
    for page, blocks in pages.items():
        text = (ROOT / page).read_text()
        assert script.filled(page, text, blocks) == text, (
            f"{page} is not what scripts/pages.py makes of the records"
        )
    bundled = bias_card.card_path(script.CORPUS)
    assert bundled.exists() == (found is not None)
    if found is not None:
        assert bundled.read_text() == bias_card.encode_card(make_card(found)), (
            "run scripts/pages.py"
        )


# --- records ----------------------------------------------------------------------------------


def test_a_fit_of_three_records():
    (found,) = fit(three())
    work, gains = (
        np.array([21.0, 22.0, 23.0]),
        np.array([m.gain_bits_per_token for m in found.models]),
    )
    assert found.bias_bits.value == pytest.approx(float(best_bias(work, gains)))
    assert found.bias_bits.low <= found.bias_bits.value <= found.bias_bits.high
    assert (
        found.information_capacity.low
        < found.information_capacity.value
        < found.information_capacity.high
    )
    assert found.spread_fitted < found.spread_with_zero
    assert [m.rank_with_zero for m in found.models] == [1, 2, 3]
    assert found.recorded_bias_bits == 0 and [m.rank_recorded for m in found.models] == [1, 2, 3]
    assert sorted(m.rank_fitted for m in found.models) == [1, 2, 3]
    assert all(m.bias_without is not None for m in found.models)
    assert not found.exact and not found.cautions


def test_the_interval_draws_the_same_documents_for_all_models():
    """A document that is hard for one is hard for all: drawn apart,
    the interval would be many times as wide.
    """
    records = three(wobble=0.02)
    (found,) = fit(records)
    texts = [r.cells[0].outcome.compression for r in records]
    drawn = []
    for t in texts:
        columns = np.array([(8 * d.bytes, d.nll_bits, d.tokens) for d in t.per_document], float)
        sums = stats.bootstrap_sums(columns)
        drawn.append((sums[:, 0] - sums[:, 1]) / sums[:, 2])
    work, gains = np.array([21.0, 22.0, 23.0]), np.column_stack(drawn)
    for row in gains[::200]:
        assert float(best_bias(work, row)) == pytest.approx(by_scipy(work, row), abs=1e-3)
    low, high = np.percentile(best_bias(work, gains), [2.5, 97.5])
    assert (found.bias_bits.low, found.bias_bits.high) == pytest.approx((low, high), rel=1e-6)
    shuffled = np.column_stack([np.roll(g, 7 * n) for n, g in enumerate(drawn)])
    apart = np.percentile(best_bias(work, shuffled), [2.5, 97.5])
    assert apart[1] - apart[0] > 2 * (high - low)


def test_two_records_are_exact_and_told_so():
    (found,) = fit(three()[:2])
    assert found.exact and found.spread_fitted == 0 and found.agreement is None
    assert [m.rank_fitted for m in found.models] == [1, 1]
    assert [m.bias_without for m in found.models] == [None, None]
    assert "two models" in found.cautions[0]
    first, second = (m.information_capacity for m in found.models)
    assert first == pytest.approx(second)


def test_a_bias_that_is_not_bounded_is_told():
    noisy = [
        model("a", 20.0, 21, wobble=0.2),
        model("b", 20.02, 22, wobble=-0.2),
        model("c", 20.04, 23),
    ]
    (found,) = fit(noisy)
    assert (found.bias_bits.low, found.bias_bits.high) == (None, None)
    assert any("not bounded" in c for c in found.cautions)


def test_a_bias_that_is_badly_determined_is_told():
    noisy = [
        model("a", 20.0, 21, wobble=0.03),
        model("b", 20.3, 22),
        model("c", 20.6, 23, wobble=-0.03),
    ]
    (found,) = fit(noisy)
    assert found.bias_bits.high - found.bias_bits.low > 1
    assert any("badly determined" in c for c in found.cautions)


def test_a_series_that_no_bias_makes_constant_is_told():
    (found,) = fit(three((20.0, 21.4, 20.6), (21.0, 21.3, 21.6)))
    assert any("hardly any bias" in c for c in found.cautions)


def test_of_one_document_there_is_no_interval():
    single = text(documents=1)
    (found,) = fit([model("a", 20, 21, scored=single), model("b", 20.5, 22, scored=single)])
    assert found.bias_bits.low is None
    assert any("one document" in c for c in found.cautions)


def test_a_record_without_the_cell_is_left_out_with_a_note():
    lacking = model("d", 22.0, 24)
    lacking = replace(lacking, cells=tuple(c for c in lacking.cells if c.precision != "fp32"))
    (found,) = fit([*three(), lacking])
    assert (
        len(found.models) == 3 and "left out: the record of d has no fp32 cell" in found.cautions[0]
    )
    (found,) = fit(
        [
            *three(),
            lacking,
            *[replace(lacking, created_utc=f"2027-0{n}-01T00:00:00Z") for n in range(1, 7)],
        ]
    )
    assert (
        "likewise d of 2027-01-01T00:00:00, " in found.cautions[0]
        and "and 3 more" in found.cautions[0]
    )


def test_of_two_providers_that_of_the_most_models_is_taken():
    a, b, c = three()
    elsewhere = replace(
        a,
        created_utc="2027-01-01T00:00:00Z",
        cells=tuple(replace(x, provider="cuda") for x in a.cells),
    )
    (found,) = fit([elsewhere, a, b, c])
    assert [m.created_utc for m in found.models] == [r.created_utc for r in (a, b, c)]


@pytest.mark.parametrize("flops", [0.0, -5.0, 1.0, float("inf"), float("nan")])
def test_a_token_that_costs_nothing_is_refused(flops):
    records = [replace(r, flops=replace(r.flops, per_token=flops)) for r in three()]
    with pytest.raises(UsageError, match="which no model has"):
        fit(records)


def test_every_corpus_has_its_own_bias():
    other = replace(BASE.corpus, name="other", sha256="f" * 64)
    records = [*three(), *three((18.0, 19.0, 20.2), corpus=other)]
    first, second = fit(records)
    assert (first.corpus, second.corpus) == ("six", "other")
    assert first.bias_bits.value != second.bias_bits.value


def test_other_precisions():
    found = fit(three(), "int8d")
    assert found[0].precision == "int8d"


def test_records_with_different_biases_have_no_old_ranks():
    biased = replace(BASE.corpus, bias_bits=-10.0)
    records = [*three()[:2], model("c", 21.0, 23.0, corpus=biased)]
    (found,) = fit(records)
    assert found.recorded_bias_bits is None and found.spread_recorded is None
    assert [m.rank_recorded for m in found.models] == [None] * 3
    (found,) = fit([replace(r, corpus=biased) for r in three()])
    assert found.recorded_bias_bits == -10 and found.spread_recorded < found.spread_with_zero


def test_a_model_that_was_profiled_twice_is_one():
    a, b, c = three()
    later = replace(a, created_utc="2027-01-01T00:00:00Z")
    (found,) = fit([later, b, c, a])
    assert [m.created_utc for m in found.models if m.name == "a"] == ["2027-01-01T00:00:00Z"]
    assert len(found.models) == 3 and "2 records are of a" in found.cautions[0]
    for same in (later, a):
        with pytest.raises(UsageError, match="this is one: a .*2 records are of a"):
            fit([a, same])


def test_models_of_one_name_are_told_apart():
    a, b, _ = three()
    b = replace(b, source=replace(b.source, name="a"), created_utc="2027-01-01T00:00:00Z")
    assert [m.name for m in fit([a, b])[0].models][1] == "a of 2027-01-01T00:00:00Z"


def changed(record, **fields):
    """Another way of scoring the text."""
    cells = tuple(
        replace(c, outcome=replace(c.outcome, compression=replace(c.outcome.compression, **fields)))
        if isinstance(c.outcome, Measurement)
        else c
        for c in record.cells
    )
    return replace(record, cells=cells)


def unscored(record):
    cells = tuple(
        replace(
            c,
            outcome=replace(
                c.outcome, compression=Absent(reason="an encoder predicts no next token")
            ),
        )
        if isinstance(c.outcome, Measurement)
        else c
        for c in record.cells
    )
    return replace(record, cells=cells)


A, B, C = three()
RETOKENISED = model("b", 20.5, 22, scored=text(tokens=90))
UNLIKE = {
    "corpus of b": replace(B, corpus=replace(B.corpus, sha256="f" * 64)),
    "protocol of b \\(paper\\) differs from that of a \\(exact\\)": changed(B, protocol="paper"),
    "window \\(--context\\) of b \\(256\\)": changed(B, context=256),
    "stride of b": changed(B, stride=128),
    "tokenizer of b": RETOKENISED,
    "set of documents of b": changed(
        B, per_document=B.cells[0].outcome.compression.per_document[:-1]
    ),
    "number of steps": replace(B, flops=replace(B.flops, context=256)),
    "count of FLOPs of b": replace(B, flops=replace(B.flops, own_position=False)),
    "the record of b has no fp32 cell that scored text": unscored(B),
    "the record of b has no FLOPs: lost": replace(B, flops=Absent(reason="lost")),
    "no fp32 cell that scored text; it has int8d on cpu": replace(
        B, cells=tuple(c for c in B.cells if c.precision == "int8d")
    ),
    "larger models do not gain more": model("b", 19.0, 22),
    "two sizes": model("b", 20.5, 21.0),
}


@pytest.mark.parametrize("said", UNLIKE)
def test_what_is_no_series_is_refused_naming_both(said):
    with pytest.raises(UsageError, match=said) as error:
        fit([A, UNLIKE[said]])
    assert "a" in str(error.value).split() or "b" in str(error.value)


def test_a_failed_cell_is_told_with_its_reason():
    failed = replace(
        B,
        cells=(
            replace(B.cells[0], outcome=Failure(stage="export", error="Crash", message="signal 9")),
        ),
    )
    with pytest.raises(UsageError, match="signal 9"):
        fit([A, failed])


# --- the card ---------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "my.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    return path


@pytest.fixture
def fitted(corpus):
    """A fit on the corpus."""
    sha = read_corpus(str(corpus)).sha256
    return fit([replace(r, corpus=replace(r.corpus, name="my", sha256=sha)) for r in three()])[0]


def test_a_corpus_takes_its_bias_from_the_card_beside_it(corpus, fitted):
    before = corpus_fingerprint(str(corpus), corpus.parent)
    bias_card.card_path(corpus).write_text(bias_card.encode_card(make_card(fitted)))
    read = read_corpus(str(corpus))
    assert read.bias_bits == fitted.bias_bits.value
    assert corpus_info(read, None, {}).bias_bits == fitted.bias_bits.value
    assert corpus_info(read, -3.0, {}).bias_bits == -3.0
    assert read_corpus(str(corpus), limit=1).bias_bits == 0
    assert read_corpus(str(corpus), limit=2).bias_bits == fitted.bias_bits.value
    assert corpus_fingerprint(str(corpus), corpus.parent) != before


def test_the_card_says_where_the_bias_came_from(fitted):
    written = bias_card.encode_card(make_card(fitted))
    found = msgspec.json.decode(written, type=bias_card.BiasCard)
    assert found.sha256 == fitted.sha256 and found.low == fitted.bias_bits.low
    assert [m.weights_sha256 for m in found.models] == [
        "weights of a",
        "weights of b",
        "weights of c",
    ]
    assert (found.protocol, found.context, found.precision) == ("exact", 1024, "fp32")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda c: c.replace('"sha256": "', '"sha256": "0', 1), "is the card of another text"),
        (lambda c: c[:50], "is no card of a corpus"),
        (lambda c: "[]", "is no card of a corpus"),
        (lambda c: c.replace('"edgecap_card": 1', '"edgecap_card": 2'), "a card of form 2"),
    ],
)
def test_another_card_is_refused_in_a_line_unless_a_bias_is_given(corpus, fitted, damage, said):
    bias_card.card_path(corpus).write_text(damage(bias_card.encode_card(make_card(fitted))))
    with pytest.raises(UsageError, match=said) as error:
        read_corpus(str(corpus))
    assert "\n" not in str(error.value) and "--bias" in str(error.value)
    assert read_corpus(str(corpus), bias_bits=-1.0).bias_bits == 0


def test_a_folder_is_no_card(corpus):
    bias_card.card_path(corpus).mkdir()
    with pytest.raises(UsageError, match="cannot read the card"):
        read_corpus(str(corpus))


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    paths = []
    for record in three(wobble=0.01):
        paths.append(tmp_path / f"{record.source.name}.json")
        save(record, paths[-1])
    return [str(p) for p in paths]


def run(*words):
    return CliRunner().invoke(cli, [*words])


def test_fit_prints_bias_spread_and_ranks(files):
    done = run("fit", *files)
    assert done.exit_code == 0, done.output
    assert (
        "bias of six: " in done.stdout
        and "without bias" in done.stdout
        and "Kendall's tau" in done.stdout
    )
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_fit_as_json(files):
    done = run("fit", "--json", *files)
    (found,) = json.loads(done.stdout)
    assert (
        found["bias_bits"]["kind"] == "estimate"
        and len(found["models"]) == 3
        and found["criterion"]
    )


def test_fit_writes_a_card_over_a_former_one_only(files, tmp_path):
    where = tmp_path / "six.jsonl.card.json"
    assert run("fit", *files, "--write-corpus", str(where)).exit_code == 0
    assert run("fit", *files, "--write-corpus", str(where)).exit_code == 0
    assert msgspec.json.decode(where.read_bytes(), type=bias_card.BiasCard).corpus == "six"
    where.write_text("mine")
    refused = run("fit", *files, "--write-corpus", str(where))
    assert refused.exit_code != 0 and where.read_text() == "mine"
    onto = run("fit", *files, "--write-corpus", files[0])
    assert isinstance(onto.exception, UsageError) and "one of the records" in str(onto.exception)


def test_records_are_rescored_as_if_measured_under_the_bias(files, tmp_path):
    done = run("fit", *files, "--rescore", str(tmp_path / "new"))
    assert done.exit_code == 0, done.output
    found = [load(tmp_path / "new" / Path(f).name) for f in files]
    bias = found[0].corpus.bias_bits
    assert bias != 0 and {r.corpus.bias_bits for r in found} == {bias}
    for old, new in zip(map(load, files), found, strict=True):
        assert [c.outcome for c in old.cells] == [c.outcome for c in new.cells]
        for before, after in zip(old.cells, new.cells, strict=True):
            if isinstance(before.outcome, Measurement):
                ratio, law = before.score.roofline_ratio, new.corpus.law
                assert law.bias_bits == bias
                assert after.score == score(after.outcome, new.flops, bias, ratio, law=law)
    again = run("fit", *files, "--rescore", str(tmp_path / "new"))
    assert isinstance(again.exception, UsageError) and "would overwrite" in str(again.exception)
    twice = run("fit", *files, files[0], "--rescore", str(tmp_path / "other"))
    assert isinstance(twice.exception, UsageError) and not (tmp_path / "other").exists()


def test_a_record_of_a_text_without_a_fit_is_not_rescored(files, tmp_path):
    lacking = model("d", 22.0, 24, corpus=replace(BASE.corpus, name="other", sha256="f" * 64))
    save(
        replace(lacking, cells=tuple(c for c in lacking.cells if c.precision != "fp32")),
        tmp_path / "d.json",
    )
    done = run("fit", *files, str(tmp_path / "d.json"), "--rescore", str(tmp_path / "new"))
    assert done.exit_code == 0, done.output
    assert "d.json: no bias was fitted on its corpus" in done.stderr
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(
        Path(f).name for f in files
    )


def test_a_card_that_profile_would_not_find_is_told(files, tmp_path):
    done = run("fit", *files, "--write-corpus", str(tmp_path / "card.json"))
    assert "rename the card" in done.stderr


def test_a_card_holds_one_corpus(files, tmp_path):
    for record in three(corpus=replace(BASE.corpus, name="other", sha256="f" * 64)):
        files.append(str(tmp_path / f"other-{record.source.name}.json"))
        save(record, tmp_path / f"other-{record.source.name}.json")
    refused = run("fit", *files, "--write-corpus", str(tmp_path / "x.card.json"))
    assert isinstance(refused.exception, UsageError) and "six, other" in str(refused.exception)
    assert run("fit", *files).stdout.count("bias of ") == 2


def test_one_record_is_refused(files):
    refused = run("fit", files[0])
    assert isinstance(refused.exception, UsageError) and refused.exception.exit_code == 2
    assert "two models" in str(refused.exception)


def test_names_from_outside_command_no_terminal(tmp_path):
    hostile = [
        replace(r, source=replace(r.source, name=f"{r.source.name}\x1b[31m")) for r in three()
    ]
    paths = []
    for n, record in enumerate(hostile):
        paths.append(str(tmp_path / f"{n}.json"))
        save(record, tmp_path / f"{n}.json")
    assert "\x1b[31m" not in run("fit", *paths).stdout
