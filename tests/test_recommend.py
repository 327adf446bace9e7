"""recommend: the best within the limits, what each limit costs,
and what to say where nothing fits.
"""

import json

import click
import msgspec
import pytest
from choosing import BOARD, cell, encoder, failed, joules, rebuilt, record, renamed, with_outcome
from commands import edgecap
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import RECORD, drifting

from edgecap.analysis import metrics
from edgecap.analysis.cell_view import cell_views
from edgecap.analysis.law import law_of, slopes_for
from edgecap.analysis.recommend import OPTIONS, SHOWN, parse_limit, recommend
from edgecap.analysis.recommend.limits import option_text
from edgecap.analysis.verdict import decide
from edgecap.errors import UsageError
from edgecap.record import Absent, SweepPoint
from edgecap.report.terminal.recommendation import advised

DATA = ROOT / "tests" / "data"
THREE = record(
    cell("fp32", decode=0.004, bits=2.0, file=8000, peak=9000),
    cell("int8", decode=0.002, bits=2.1, file=2000, peak=5000),
    cell("int4", decode=0.001, bits=2.4, file=1000, peak=4000),
)


def limits(**given):
    return [
        parse_limit(f"--max-{name.replace('_', '-')}", str(text)) for name, text in given.items()
    ]


def text_of(found, width=80):
    return click.unstyle(advised(found, width)) + "\n"


# --- what is typed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "text", "most"),
    [
        ("--max-latency-ms", "0.5", 0.0005),
        ("--max-latency-ms", "300us", 0.0003),
        ("--max-ttft-ms", "1e2", 0.1),
        ("--max-memory", "200MB", 200e6),
        ("--max-memory", " 1.5 gb ", 1.5e9),
        ("--max-memory", "512MiB", 512 * 1024**2),
        ("--max-file", "1234", 1234),
        ("--max-energy-j", "0.02", 0.02),
        ("--max-energy-j", "5mJ", 0.005),
        ("--max-energy-j", "5 μJ", 5e-6),
        ("--max-bits-per-byte", "2.45", 2.45),
        ("--max-kl", ".01", 0.01),
    ],
)
def test_limits_as_they_are_typed(option, text, most):
    assert parse_limit(option, text).most == pytest.approx(most)


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--max-latency-ms", "-5", "above 0"),
        ("--max-latency-ms", "0", "above 0"),
        ("--max-latency-ms", "1e999", "finite"),
        ("--max-latency-ms", "nan", "not a number"),
        ("--max-latency-ms", "inf", "not a number"),
        ("--max-latency-ms", "", "not a number"),
        ("--max-latency-ms", "1,5", "not a number"),
        ("--max-latency-ms", "5 MB", "its units are ms"),
        ("--max-memory", "200 XB", "its units are B, kB, MB"),
        ("--max-memory", "MB", "not a number"),
        ("--max-energy-j", "5MJ", "its units are J, mJ"),
        ("--max-bits-per-byte", "2.4 bits", "no unit"),
        ("--max-memory", "x" * 10_000, "not a number"),
    ],
)
def test_what_is_no_limit_is_refused_in_a_line(option, text, said):
    with pytest.raises(UsageError, match=said) as error:
        parse_limit(option, text)
    assert option in str(error.value) and "write" in str(error.value)
    assert len(str(error.value)) < 250


@given(st.sampled_from([option.name for option in OPTIONS]), st.floats(1e-7, 1e13))
@settings(deadline=None)
def test_what_is_suggested_to_type_is_just_enough(option, value):
    limit = parse_limit(option, "1")
    name, _, text = option_text(limit, value).partition(" ")
    assert name == option
    assert value <= parse_limit(option, text).most <= 1.0101 * value


# --- the best ---------------------------------------------------------------------------------


def test_the_best_the_runner_up_and_what_a_limit_costs():
    found = recommend([THREE], limits(bits_per_byte=2.2, file=9000), "speed")
    assert (found.best.name, found.runner_up.name) == ("int8", "fp32")
    quality, size, everything = found.costs
    assert quality.winner == "int4"
    changes = {c.metric: (c.kept, c.freed) for c in quality.changes}
    assert changes == {
        "decode_s": (0.002, 0.001),
        "bits_per_byte": (pytest.approx(2.1), pytest.approx(2.4)),
    }
    assert (size.winner, size.changes) == ("int8", ())
    assert (everything.limit, everything.winner) == (None, "int4")
    assert [c.name for c in found.candidates] == ["int8", "fp32", "int4"]
    assert [c.state for c in found.candidates] == ["fits", "fits", "misses"]


@pytest.mark.parametrize(
    ("prefer", "best", "metric"),
    [
        ("speed", "int4", "decode_s"),
        ("quality", "fp32", "bits_per_byte"),
        ("memory", "int4", "peak_bytes"),
        ("size", "int4", "file_bytes"),
    ],
)
def test_what_is_preferred_decides(prefer, best, metric):
    found = recommend([THREE], (), prefer)
    assert (found.best.name, found.preference.metric) == (best, metric)


def test_worth_is_that_beside_fp32_by_hand():
    """Bits a token over the middle of the known slopes, times speed; b cancels."""
    found = recommend([THREE])
    slope = slopes_for(law_of(THREE), [THREE.flops.per_token]).middle
    texts = {c.precision: c.outcome.compression for c in THREE.cells}
    for c in found.candidates:
        more = texts[c.name].gain_bits_per_token - texts["fp32"].gain_bits_per_token
        by_hand = 2 ** (more / slope) * 0.004 / c.figures["decode_s"]
        assert c.figures["worth"] == pytest.approx(by_hand)
    assert (found.preference.metric, found.preference.reason) == ("worth", None)


def taking_turns(made):
    latency = msgspec.structs.replace(made.outcome.latency, in_turns=True)
    return with_outcome(made, latency=latency)


@pytest.mark.parametrize("in_turns", [False, True])
def test_worth_is_the_ratio_of_the_verdict(in_turns):
    """In turns the median of the rounds' ratios is not the ratio of their medians."""
    slower = tuple(0.004 * (1 + 0.03 * n * n) for n in range(9))
    faster = tuple(s * (0.6 + 0.04 * ((5 * n) % 9)) for n, s in enumerate(slower))
    cells = [cell("fp32", decode=slower), cell("int8", decode=faster)]
    made = record(*[taking_turns(c) for c in cells] if in_turns else cells)
    (decision,) = decide(cell_views([made]))
    figures = {c.name: c.figures["worth"] for c in recommend([made], (), "speed").candidates}
    assert figures["int8"] == decision.options[0].against.ratio("effective_flops_per_s").value


def test_worth_without_a_verdict_says_why():
    """Both ship fp32: three rounds decide nothing."""
    few = record(cell("fp32", decode=(0.004,) * 3), cell("int8", decode=(0.002,) * 3))
    found = recommend([few])
    figures = {c.name: c.figures["worth"] for c in found.candidates}
    assert "3 rounds are too few" in figures["int8"].reason
    (decision,) = decide(cell_views([few]))
    assert found.best.name == decision.shipped.name == "fp32"


def test_a_variant_that_is_not_surely_worth_more_leaves_fp32():
    """Twice as fast, at the price of more than half the compute."""
    worse = cell("int8", decode=0.002, bits=2.6)
    found = recommend([record(cell("fp32", decode=0.004), worse)])
    assert found.best.name == "fp32" and "Ship fp32" in text_of(found)
    found = recommend([record(cell("fp32", decode=0.004), cell("int8", decode=0.002))])
    assert found.best.name == "int8"


def test_energy_decides_where_it_was_measured():
    found = recommend(
        [record(cell("fp32", energy=joules(0.01)), cell("int8", energy=joules(0.02)))], (), "energy"
    )
    assert (found.best.name, found.runner_up.name) == ("fp32", "int8")
    with pytest.raises(UsageError, match="no counter here"):
        recommend([THREE], (), "energy")


def test_assumed_joules_meet_no_limit_and_decide_nothing():
    assumed = record(
        cell("fp32", energy=joules(0.001, "assumed")), cell("int8", energy=joules(0.01))
    )
    found = recommend([assumed], limits(energy_j=0.02))
    assert found.best.name == "int8"
    states = {c.name: c.state for c in found.candidates}
    assert states == {"int8": "fits", "fp32": "not measured"}
    (held,) = found.candidates[1].held
    assert held.state == "not measured" and "assumed" in held.reason
    assert "J/token not measured: the joules are assumed" in text_of(found, 200)
    assert recommend([assumed], (), "energy").best.name == "int8"


def test_an_encoder_is_chosen_by_its_prefill():
    found = recommend([record(encoder("fp32", 0.2), encoder("int8", 0.1))], limits(ttft_ms=500))
    assert (found.best.name, found.preference.metric) == ("int8", "prefill_s")
    assert "does not decode" in found.preference.reason
    assert "Decided by prefill" in text_of(found)
    with pytest.raises(UsageError, match="predicts no next token"):
        recommend([record(encoder())], (), "quality")
    source = msgspec.structs.replace(RECORD.source, task="encoder")
    nothing = recommend([record(encoder(), source=source)], limits(latency_ms=5))
    assert nothing.best is None and any("--max-ttft-ms" in s for s in nothing.steps)


def test_bits_that_agree_in_four_places_leave_it_to_speed():
    found = recommend(
        [record(cell("fp16", decode=0.005, bits=2.000001), cell("fp32", bits=2.000004))],
        (),
        "quality",
    )
    assert (found.best.name, found.runner_up.name) == ("fp32", "fp16")
    assert "level with it" in text_of(found)


def test_a_single_cell_has_no_runner_up():
    found = recommend([record(cell())])
    assert found.runner_up is None and found.beside is None
    assert "Ship fp32: the only one of 1 measured (worth 1.000)" in text_of(found)


def test_cells_that_took_turns_are_compared_in_pairs():
    apart = recommend([drifting(0.9, False)], (), "speed")
    turns = recommend([drifting(0.9, True)], (), "speed")
    assert (apart.beside.one_after_another, turns.beside.one_after_another) == (True, False)
    assert "clearly behind" in text_of(turns) and "clearly behind" not in text_of(apart)
    assert "one after another" in text_of(apart)


def test_differences_within_the_noise_are_told():
    wide = tuple(0.004 * (1 + 0.2 * (n % 5)) for n in range(20))
    close = record(
        cell("fp32", decode=wide), cell("int8", decode=tuple(reversed([0.99 * s for s in wide])))
    )
    found = recommend([close], (), "speed")
    assert "no significant difference" in text_of(found) or "level with it" in text_of(found)
    assert "clearly behind" in text_of(recommend([THREE], (), "speed"))


def test_a_limit_within_the_noise_is_marked_and_decided_by_value():
    wide = tuple(0.001 * (1 + n % 9) for n in range(18))  # a median of 5 ms
    found = recommend([record(cell("fp32", decode=wide), cell("int8"))], limits(latency_ms=5.1))
    held = {c.name: c.held[0] for c in found.candidates}
    assert held["fp32"].state == "met" and held["fp32"].in_noise
    assert held["int8"].state == "met" and not held["int8"].in_noise
    assert "5 ms~" in text_of(found) and "within its noise" in text_of(found)


# --- nothing fits -----------------------------------------------------------------------------


def test_the_nearest_and_the_smallest_relaxation():
    found = recommend([THREE], limits(latency_ms=1.5, bits_per_byte=2.05))
    assert found.best is None
    assert (
        found.nearest.name == "int4"
    )  # 17 % above in bits; int8 is 33 % above in seconds, fp32 167 %
    assert found.nearest.held[1].over == pytest.approx(2.4 / 2.05 - 1)
    first = found.relaxations[0]
    assert (first.name, [c.typed for c in first.changes]) == ("int4", ["--max-bits-per-byte 2.4"])
    assert [r.name for r in found.relaxations] == ["int4", "fp32"]
    assert [c.typed for c in found.relaxations[1].changes] == ["--max-latency-ms 4"]
    assert any("--route" in step for step in found.steps)
    text = text_of(found)
    assert "Nothing fits." in text and "int4: --max-bits-per-byte 2.4" in text


def test_a_relaxation_lets_its_cell_in():
    asked = limits(latency_ms=1.5, bits_per_byte=2.05)
    for relaxation in recommend([THREE], asked).relaxations:
        eased = {limit.option: limit for limit in asked}
        for change in relaxation.changes:
            option, text = change.typed.split(" ", 1)
            eased[option] = parse_limit(option, text)
        found = recommend([THREE], list(eased.values()))
        assert relaxation.name in [c.name for c in found.candidates if c.state == "fits"]


def test_what_was_measured_nowhere_can_only_be_dropped():
    found = recommend([THREE], limits(energy_j=0.02))
    assert found.best is None and found.nearest is None
    assert [c.typed for c in found.relaxations[0].changes] == ["without --max-energy-j"]
    assert any("edgecap doctor" in step for step in found.steps)
    assert "has every limited metric" in text_of(found)


def test_next_steps_are_those_that_apply():
    slow = recommend([record(cell("fp32"))], limits(latency_ms=1))
    assert any("smaller model" in s for s in slow.steps)
    assert not any("larger model" in s or "--route" in s for s in slow.steps)
    coarse = recommend([record(cell("int4"))], limits(bits_per_byte=1))
    assert any("larger model" in s for s in coarse.steps)
    assert any("--precision fp32" in s for s in coarse.steps)
    machine = msgspec.structs.replace(THREE.machine, providers=("cpu", "cuda", "openvino"))
    elsewhere = recommend([msgspec.structs.replace(THREE, machine=machine)], limits(latency_ms=0.1))
    assert any(s.endswith("--provider openvino") for s in elsewhere.steps)  # no board was seen


def test_a_shorter_prompt_is_told_where_it_was_read_in_time():
    made = cell("fp32", ttft=0.25)
    points = tuple(
        SweepPoint(context=n, prefill_s=(n / 300,) * 3, decode_s=()) for n in (8, 16, 32, 64)
    )
    latency = msgspec.structs.replace(made.outcome.latency, sweep=points)
    found = recommend([record(with_outcome(made, latency=latency))], limits(ttft_ms=60))
    assert any("fp32 reads 16 tokens in 53.3 ms" in s for s in found.steps)
    assert not any(
        "reads 64" in s
        for s in recommend([record(with_outcome(made, latency=latency))], limits(ttft_ms=240)).steps
    )
    assert any("--context-sweep" in s for s in recommend([record(made)], limits(ttft_ms=60)).steps)


# --- several records --------------------------------------------------------------------------


def other_text(found):
    return msgspec.structs.replace(
        found, corpus=msgspec.structs.replace(found.corpus, sha256="other")
    )


@pytest.mark.parametrize(
    ("given", "prefer"), [({"bits_per_byte": 2.2}, None), ({}, "quality"), ({}, "worth")]
)
def test_quality_of_other_texts_is_not_compared(given, prefer):
    records = [THREE, renamed(other_text(THREE), model="other")]
    with pytest.raises(UsageError, match="their corpus differs"):
        recommend(records, limits(**given), prefer)


def test_without_a_wish_other_texts_leave_speed():
    found = recommend([THREE, renamed(other_text(THREE), model="other")])
    assert found.preference.metric == "decode_s"
    assert "the corpus of the records differs" in found.preference.reason


def test_a_protocol_that_differs_is_named():
    paper = with_outcome(
        THREE.cells[0],
        compression=msgspec.structs.replace(THREE.cells[0].outcome.compression, protocol="paper"),
    )
    with pytest.raises(UsageError, match="their protocol differs"):
        recommend([THREE, renamed(record(paper), model="other")], limits(bits_per_byte=2.2))


def test_several_machines_are_named_and_cautioned():
    slow = renamed(record(cell("fp32", decode=0.1)), machine="board")
    found = recommend([THREE, slow], limits(latency_ms=3))
    assert found.best.machine == "Example (laptop)" and "Example (laptop)" in found.best.name
    assert any("several machines (Example (laptop), Example (board))" in c for c in found.cautions)
    found = recommend(
        [THREE, rebuilt(record(cell("fp32", decode=0.1)), gpus=(BOARD,), cpu="Xeon")],
        limits(latency_ms=3),
    )
    assert any("(Example, Xeon + NVIDIA H100)" in c for c in found.cautions)


def test_a_decision_covers_one_device_though_hosts_share_a_name():
    assert len(decide(cell_views([THREE, THREE]))) == 1
    assert len(decide(cell_views([THREE, rebuilt(THREE, cpu="Xeon")]))) == 2


def test_two_records_are_compared_with_the_right_cells():
    fast = renamed(record(cell("int8", decode=0.0005), failed()), model="fast")
    found = recommend([THREE, fast], (), "speed")
    assert (found.best.model, found.best.precision) == ("fast", "int8")
    decode = next(d for d in found.beside.differences if d.metric == "decode_s")
    assert (decode.baseline, decode.candidate) == (0.001, 0.0005)
    assert decode.verdict == "better"


def test_memory_of_a_board_is_told_beside_the_hosts():
    made = cell("fp16")
    board = with_outcome(
        made, memory=msgspec.structs.replace(made.outcome.memory, device_peak_bytes=2_000_000_000)
    )
    assert any("takes 2 GB on the device" in c for c in recommend([record(board)]).cautions)
    assert not recommend([record(made)]).cautions


# --- failures and numbers ---------------------------------------------------------------------


def test_failed_cells_are_rows_and_never_win():
    found = recommend([record(failed("fp16"), cell("int8"))])
    assert found.best.name == "int8"
    assert found.candidates[1].state == "failed"
    text = text_of(found)
    assert "failed: fp16, latency: Crash: signal 9" in text


def test_nothing_measured_is_refused():
    with pytest.raises(UsageError, match="no cell was measured; fp16 failed: latency: Crash"):
        recommend([record(failed("fp16"), failed("int4"))])
    with pytest.raises(UsageError, match="holds no cell"):
        recommend([record()])
    with pytest.raises(UsageError, match="did you mean 'speed'"):
        recommend([THREE], (), "sped")


def test_of_many_cells_the_best_are_shown_and_few_are_drawn(monkeypatch):
    drawn = []
    honest = metrics.quantities

    def counting(record_, cell_, seed=None):
        drawn.append(seed)
        return honest(record_, cell_, seed)

    monkeypatch.setattr(metrics, "quantities", counting)
    cells = [cell(f"v{n}", decode=0.001 + 1e-6 * n) for n in range(300)]
    found = recommend([record(*cells)], limits(latency_ms=1.2005), "speed")
    assert sum(seed is not None for seed in drawn) <= SHOWN + 2
    assert (found.best.name, found.runner_up.name) == ("v0", "v1")
    text = text_of(found)
    assert f"and {300 - SHOWN} more: {201 - SHOWN} fits, 99 misses" in text
    assert len(text.splitlines()) < 40


# --- properties -------------------------------------------------------------------------------

NUMBERS = st.floats(0.5, 8.0)
CELLS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5)
LIMITS = st.fixed_dictionaries(
    {}, optional={n: NUMBERS for n in ("latency_ms", "bits_per_byte", "file")}
)


def made(figures):
    return record(
        *[
            cell(f"v{n}", decode=seconds / 1000, bits=bits, file=round(1000 * size))
            for n, (seconds, bits, size) in enumerate(figures)
        ]
    )


def asked(given):
    return [
        *(
            parse_limit(f"--max-{n.replace('_', '-')}", repr(v * (1000 if n == "file" else 1)))
            for n, v in given.items()
        )
    ]


@given(CELLS, LIMITS, st.sampled_from(["speed", "quality", "size"]))
@settings(deadline=None, max_examples=30)
def test_the_winner_is_within_all_limits_and_fewer_limits_are_never_worse(figures, given_, prefer):
    wanted = asked(given_)
    found = recommend([made(figures)], wanted, prefer)
    metric = found.preference.metric
    fits = [c for c in found.candidates if all(c.figures[x.metric] <= x.most for x in wanted)]
    assert (found.best is None) == (not fits)
    if found.best is None:
        assert found.nearest is not None and found.relaxations
        return
    assert found.best.figures[metric] == pytest.approx(
        min(c.figures[metric] for c in fits), abs=1e-4
    )
    for n, cost in enumerate(found.costs[: len(wanted)]):
        freed = recommend([made(figures)], wanted[:n] + wanted[n + 1 :], prefer).best
        assert freed.figures[metric] <= found.best.figures[metric] + (
            1e-4 if prefer == "quality" else 0
        )
        assert cost.winner == freed.name


# --- text, JSON, command ----------------------------------------------------------------------


def golden():
    """What tests/data/recommend-1.txt and recommend-2.txt hold: an answer, and none."""
    some = recommend(
        [record(*THREE.cells, failed("fp16"))],
        limits(latency_ms=5, memory="8.5kB", file="3kB"),
        "quality",
    )
    none = recommend([RECORD], limits(latency_ms=1.5, bits_per_byte=2.05))
    return {"recommend-1.txt": text_of(some), "recommend-2.txt": text_of(none)}


@pytest.mark.parametrize("name", ["recommend-1.txt", "recommend-2.txt"])
def test_the_text_has_not_changed(name):
    """Goldens: look at the difference; python tests/make_data.py writes them anew."""
    assert golden()[name] == (DATA / name).read_text()


def test_any_name_fits_eighty_columns_and_commands_nothing():
    odd = renamed(THREE, model="</script>\x1b[2J\u202e" + "x" * 10_000, machine="m" * 200)
    hostile = msgspec.structs.replace(failed().outcome, message="\x1b]0;title\x07" + "y" * 10_000)
    bad = msgspec.structs.replace(failed(), outcome=hostile)
    twin = renamed(record(cell("fp32", energy=joules(0.01)), bad), model="other")
    for given_ in (
        {},
        {"latency_ms": 3, "memory": "8kB", "file": 7000, "kl": 1, "energy_j": 1, "ttft_ms": 900},
    ):
        text = text_of(recommend([odd, twin], limits(**given_)))
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
        assert len(text) < 8000


def test_the_answer_is_json_without_surprises():
    found = recommend([record(cell("fp32"), failed())], limits(latency_ms=5, energy_j=1))
    values = json.loads(json.dumps(msgspec.to_builtins(found), allow_nan=False))
    assert values["best"] is None and values["nearest"] is None
    assert values["candidates"][0]["held"][1]["reason"] == "no counter here"
    assert values["candidates"][0]["figures"]["decode_j"]["kind"] == "absent"


def test_the_command(tmp_path):
    path = DATA / "record-1.json"
    found = edgecap(
        "recommend", path, "--max-latency-ms", "3", "--min-bits-per-byte-quality", "2.2"
    )
    assert found.returncode == 0 and "Ship int8" in found.stdout and "\x1b" not in found.stdout
    nothing = edgecap("recommend", path, "--max-latency-ms", "1", "--json")
    assert nothing.returncode == 1 and json.loads(nothing.stdout)["best"] is None
    damaged = tmp_path / "damaged.json"
    damaged.write_bytes(path.read_bytes()[:5000])
    assert edgecap("recommend", damaged).returncode == 3
    assert "Example: edgecap recommend" in edgecap("recommend", "--help").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "needs a record"),
        (("--max-memory", "200 XB"), "its units are"),
        (("--max-latency-ms", "-5"), "above 0"),
        (("--prefer", "beauty"), "--prefer takes"),
        (("--route-by", "energy"), "belongs to --route"),
        (("--route", "--max-file", "2MB"), "not --max-file"),
        (("--route", "--prefer", "speed"), "not --prefer"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_a_line(words, said):
    found = edgecap("recommend", *([DATA / "record-1.json"] if words else []), *words)
    assert (found.returncode, found.stdout) == (2, "")
    usage, message = found.stderr.strip().splitlines()[:-1], found.stderr.strip().splitlines()[-1]
    assert said in message
    assert not usage or usage[0].startswith("Usage: ") and len(usage) == 3


def test_reasons_are_kept():
    found = recommend([THREE], limits(energy_j=1))
    assert isinstance(found.candidates[0].figures["decode_j"], Absent)
