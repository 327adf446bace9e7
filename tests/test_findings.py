"""Titles of figures: each is true of its data, and changes when they do."""

import pytest
from pages import MEASURED, RECORD, failed, replace, two_machines, with_energy, with_operators
from test_decision import changed, slower

from edgecap.analysis.verdict import decide
from edgecap.record import Absent, SweepPoint
from edgecap.report.cells import display_views
from edgecap.report.page.figures import sections
from edgecap.report.page.findings import decode_growth, prefill_growth


def titles_of(*records):
    views = display_views(records)
    return {f.id: f.title for s in sections(views, decide(views)) for f in s.figures}


def cell_of(record, name):
    return next(c for c in record.cells if c.precision == name)


def sized(record, name, **bytes_):
    return changed(record, name, memory=replace(cell_of(record, name).outcome.memory, **bytes_))


SLOW = slower(MEASURED, "int8d", 4)


def test_worth_and_time_name_the_variant_that_is_better_and_by_how_much():
    found, slow = titles_of(MEASURED), titles_of(SLOW)
    assert found["worth-decode_s"].startswith("int8d is worth 1.34 times as much as fp32 (95 % ")
    assert slow["worth-decode_s"] == "No variant is surely worth more than fp32"
    assert found["time"].startswith("int8d decodes a token in 0.50 of fp32's time (95 % 0.50")
    assert slow["time"] == "No variant surely decodes faster than fp32"
    assert "0.25 of fp32's time" in titles_of(slower(MEASURED, "int8d", 0.5))["time"]


def test_capacity_names_the_variant_that_has_more():
    assert titles_of(MEASURED)["capacity"] == "int8d has 1.016 times the time capacity of fp32"
    assert titles_of(SLOW)["capacity"] == "No variant surely has more capacity than fp32"


def test_memory_and_file_name_the_smallest():
    same = titles_of(MEASURED)
    assert same["memory"] == "No variant surely needs less RAM than fp32"
    assert same["worth-file_bytes"] == "No variant has a smaller file than fp32"
    small = titles_of(sized(MEASURED, "fp16", file_bytes=2000, peak_bytes=1500))
    assert small["memory"] == "fp16 needs 0.50 of fp32's RAM; fp16's file is 0.50 of fp32's"
    assert small["worth-file_bytes"].startswith(
        "fp16 shrinks the file most, to 0.50 of fp32's, and is worth 0.67 times as much (95 %"
    )


def test_energy_says_who_takes_less_or_why_there_is_none():
    found = titles_of(with_energy())
    assert found["energy"].startswith("int8d takes 0.70 of fp32's joules a token (95 % ")
    assert found["worth-decode_j"].startswith("int8d takes 0.70 of fp32's joules a token, and ")
    assert found["split"] == "package-0 takes 80 % of joules"
    assert titles_of(MEASURED)["energy"] == "No energy was measured"
    even = with_energy()
    first = cell_of(even, "fp32").outcome.energy
    for name in ("fp16", "int8d"):
        even = changed(even, name, energy=first)
    assert titles_of(even)["energy"] == "No variant surely takes fewer joules a token than fp32"


def test_one_cell_is_compared_with_nothing():
    found = titles_of(replace(MEASURED, cells=MEASURED.cells[:1]))
    assert found["time"] == "A token is decoded in 4 ms"
    assert found["memory"] == "RAM peaks at 3 kB"
    assert found["capacity"].startswith("fp32 has the time capacity 0.188")
    assert not any(name.startswith("worth") for name in found)


def test_several_machines_are_counted():
    one, other = two_machines()
    titles = titles_of(one, other), titles_of(one, slower(other, "int8d", 4))
    counts = [found["worth-decode_s"].split(" pairs")[0] for found in titles]
    assert counts == ["On 2 of 2", "On 1 of 2"]


def test_roofline_and_operators_state_the_data():
    found = titles_of(with_operators())
    assert found["roofline"].endswith("decode is memory-bound, at 5 to 10 % of its roofline")
    assert found["operators-decode"] == "MatMul takes 60 % of the operator time of decoding"
    assert titles_of(MEASURED)["operators"] == "The time of operators was not measured"


def test_the_tail_of_latency_is_a_multiple_of_the_median():
    even = titles_of(MEASURED)["distribution"]
    assert even == "The slowest hundredth of tokens takes hardly longer than the median"
    latency = cell_of(MEASURED, "fp32").outcome.latency
    samples = tuple(0.02 if n % 10 == 0 else 0.004 for n in range(len(latency.decode.samples_s)))
    decode = replace(latency.decode, samples_s=samples)
    uneven = changed(MEASURED, "fp32", latency=replace(latency, decode=decode))
    assert "takes at least 1 to 5 times the median" in titles_of(uneven)["distribution"]


def harder(domain, factors):
    """The record with the documents of a domain harder, by a factor for each in turn."""
    record = MEASURED
    for cell in MEASURED.cells:
        text = cell.outcome.compression
        documents = tuple(
            replace(d, nll_bits=d.nll_bits * factors[n % len(factors)]) if d.domain == domain else d
            for n, d in enumerate(text.per_document)
        )
        by_domain = dict(text.by_domain)
        own = [d for d in documents if d.domain == domain]
        bits = sum(d.nll_bits for d in own) / sum(d.bytes for d in own)
        by_domain[domain] = replace(by_domain[domain], bits_per_byte=bits)
        text = replace(text, per_document=documents, by_domain=by_domain)
        record = changed(record, cell.precision, compression=text)
    return record


def test_a_domain_is_called_hardest_only_if_its_documents_say_so():
    assert titles_of(MEASURED)["domains"] == "No domain surely takes the most bits a byte"
    assert titles_of(harder("b", [3]))["domains"].startswith("b takes the most bits a byte: ")
    assert titles_of(harder("a", [3]))["domains"].startswith("a takes the most bits a byte: ")


def test_a_title_is_no_description_and_ends_without_a_dot():
    for records in ([MEASURED], [RECORD], [failed()], [with_operators(with_energy())]):
        for title in titles_of(*records).values():
            assert title and not title.endswith(".") and "against" not in title
            assert title[0].isupper() or title.split()[0] in {"int8d", "fp16", "fp32", "package-0"}


# --- growth ---------------------------------------------------------------------------------------


def sweep(*seconds, rounds=9, begin=128):
    """Points at 128, 512, ... tokens; the rounds differ by up to 1 %."""
    spread = [1 + (n % 3 - 1) / 100 for n in range(rounds)]
    return [
        SweepPoint(
            context=begin * 4**n,
            prefill_s=tuple(s * at for s in spread),
            decode_s=tuple(s * at for s in spread),
        )
        for n, at in enumerate(seconds)
    ]


@pytest.mark.parametrize(
    ("seconds", "title"),
    [
        ((1, 4), "Prefill grows linearly from 128 to 512 tokens"),
        ((1, 8), "Prefill grows faster than the prompt: 8 times from 128 to 512 tokens"),
        ((1, 2), "Prefill grows less than the prompt: 2 times from 128 to 512 tokens"),
    ],
)
def test_growth_of_prefill(seconds, title):
    assert prefill_growth([sweep(*seconds)]) == title


def test_cells_that_grow_differently_have_no_common_rule():
    title = prefill_growth([sweep(1, 4), sweep(1, 8)])
    assert title == "Prefill takes 4 to 8 times as long for 512 tokens as for 128"


def test_growth_of_decoding():
    assert decode_growth([sweep(1, 1.5), sweep(1, 2)]) == (
        "A decoded token takes 1.5 to 2 times as long behind 512 tokens as behind 128"
    )
    even = decode_growth([sweep(1, 1)])
    assert even == "A decoded token takes as long behind 512 tokens as behind 128"
    assert "is not sure" in decode_growth([sweep(1, 1.5), sweep(1.5, 1)])


def test_few_rounds_make_no_growth_sure():
    assert "is not sure" in prefill_growth([sweep(1, 4, rounds=2)])
    assert "is not sure" in decode_growth([sweep(1, 2, rounds=2)])


def test_growth_is_that_between_contexts_which_all_cells_share():
    """One cell stops at 512 tokens, the other begins there; or both have 128 and 512."""
    longer = sweep(1, 4, 32)  # grows faster, but only beyond 512
    assert prefill_growth([sweep(1, 4), longer]) == "Prefill grows linearly from 128 to 512 tokens"
    assert decode_growth([sweep(1, 2), sweep(1, 2, 9)]) == (
        "A decoded token takes 2 times as long behind 512 tokens as behind 128"
    )
    apart = [sweep(1, 4), sweep(1, 4, begin=512)]
    assert prefill_growth(apart) == "Prefill was timed at fewer than two common contexts"
    assert decode_growth(apart) == "Decoding was timed at fewer than two common contexts"
    assert prefill_growth([sweep(1)]) == "Prefill was timed at fewer than two common contexts"


def test_a_report_of_records_with_other_contexts_names_those_of_each_cell():
    def swept(record, *seconds, begin=128):
        latency = cell_of(record, "fp32").outcome.latency
        points = tuple(sweep(*seconds, begin=begin))
        return changed(record, "fp32", latency=replace(latency, sweep=points))

    records = (swept(MEASURED, 1, 4), swept(two_machines()[1], 1, 2, begin=512))
    views = display_views(records)
    figures = {f.id: f for s in sections(views, decide(views)) for f in s.figures}
    figure = figures["growth-prefill"]
    assert figure.title == "Prefill was timed at fewer than two common contexts"
    assert "1 s at 128 to 4 s at 512 tokens" in figure.text
    assert "1 s at 512 to 2 s at 2048 tokens" in figure.text


def test_a_record_with_a_sweep_has_the_titles_of_its_growth():
    latency = cell_of(MEASURED, "fp32").outcome.latency
    swept = replace(latency, sweep=tuple(sweep(1, 4)))
    found = titles_of(changed(MEASURED, "fp32", latency=swept))
    assert found["growth-prefill"].startswith("Prefill grows linearly")
    assert "4 times as long" in found["growth-decode"]


def test_nothing_measured_is_said_in_each_title():
    nothing = changed(MEASURED, "fp32", latency=Absent(reason="no time"))
    assert titles_of(nothing)["time"].startswith("A token is decoded in")
    found = titles_of(failed())
    assert found["time"] == "No cell was timed"
    assert found["memory"] == "The memory of no cell was measured"
