"""Records to make pages of: as measured, with energy, one cell, 300 cells, hostile names,
nothing measured; and tokenizers.
"""

from __future__ import annotations

import json

import msgspec
from conftest import REFERENCE, ROOT
from samples import ENERGY

from edgecap.analysis.score import score
from edgecap.analysis.tokenizing.loading import load_tokenizers
from edgecap.analysis.tokenizing.parallel import read_parallel
from edgecap.analysis.tokenizing.study import study_corpus, study_languages
from edgecap.record import (
    Absent,
    Caution,
    Failure,
    LeftOut,
    Measurement,
    Placement,
    ProviderShare,
    Window,
)
from edgecap.report.page.tokenizers import corpus_page, languages_page
from edgecap.storage.records import load
from edgecap.text.corpus import read_corpus

replace = msgspec.structs.replace
RECORD = load(ROOT / "tests" / "data" / "record-5.json")
MEASURED = replace(
    RECORD, cells=tuple(c for c in RECORD.cells if isinstance(c.outcome, Measurement))
)
EVIL = (
    "</script><script>window.evil=1</script>"
    '<img src=https://evil.example/x onerror="window.evil=1">'
)
BIDI = "\u202egnihton\u202c \u2066\u2028"
LONG = "x" * 10_000


def with_energy(record=MEASURED, **changes):
    """Joules that depend on the cell, in two domains, and the scores that they give."""
    return replace(
        record, cells=tuple(_powered(c, n, record, changes) for n, c in enumerate(record.cells))
    )


def _powered(cell, place, record, changes):
    def window(joules, tokens):
        return Window(
            joules=joules,
            seconds=2.0,
            tokens=tokens,
            by_domain={"package-0": 0.8 * joules, "dram": 0.2 * joules},
        )

    spread = [1.0, 1.01, 0.99, 1.02]
    energy = replace(
        ENERGY,
        domains=("package-0", "dram"),
        prefill=tuple(window(20.0 * s, 1000) for s in spread),
        decode=tuple(window((20.0 - 3 * place) * s, 500) for s in spread),
        left_out=(LeftOut(name="psys", reason="contains package-0"),),
        quantisation=0.001,
        **changes,
    )
    outcome = replace(cell.outcome, energy=energy)
    ratio = cell.score.roofline_ratio
    return replace(
        cell, outcome=outcome, score=score(outcome, record.flops, record.corpus.bias_bits, ratio)
    )


def with_operators(record=MEASURED):
    """Shares of time by operator, as --operators keeps them."""
    shares = {
        "MatMul": 0.6,
        "GroupQueryAttention": 0.2,
        "<b>Add</b>": 0.1,
        **{f"Op{n}": 0.01 for n in range(10)},
    }
    placement = Placement(
        by_provider={"cpu": ProviderShare(nodes=10, time_share=1.0)},
        operators={"prefill": shares, "decode": shares},
    )
    return replace(
        record,
        cells=tuple(
            replace(c, outcome=replace(c.outcome, placement=placement)) for c in record.cells
        ),
    )


def many(count=300):
    """So many cells, each a little slower than the one before."""
    base = with_operators(with_energy()).cells
    cells = tuple(
        _slower(base[n % len(base)], f"int4-variant{n}", 1 + n / 100) for n in range(count)
    )
    return replace(MEASURED, cells=cells)


def _slower(cell, name, factor):
    latency = cell.outcome.latency
    decode = replace(latency.decode, samples_s=tuple(s * factor for s in latency.decode.samples_s))
    outcome = replace(cell.outcome, latency=replace(latency, decode=decode))
    return replace(cell, precision=name, outcome=outcome)


def failed():
    """Nothing of the run could be measured."""
    failure = Failure(
        stage="latency", error="Killed", message="the child was killed by SIGKILL (9)"
    )
    nothing = Absent(reason="the cell failed")
    cells = tuple(
        replace(c, outcome=failure, score=nothing, roofline=nothing) for c in RECORD.cells
    )
    return replace(RECORD, cells=cells, complete=False)


def hostile():
    """Names from outside that want to be more than names."""
    record = with_operators(with_energy(counter=EVIL))
    cells = []
    for n, cell in enumerate(record.cells):
        text = cell.outcome.compression
        name = (EVIL, BIDI, LONG)[n % 3]
        domains = {f"{name}{k}": v for k, v in text.by_domain.items()}
        outcome = replace(cell.outcome, compression=replace(text, by_domain=domains))
        caution = Caution(code=name, message=f"{name}{EVIL}{BIDI}{LONG}", advice=EVIL)
        cells.append(
            replace(
                cell, precision=name, provider=f"cpu:{name}", outcome=outcome, cautions=(caution,)
            )
        )
    cells.append(
        replace(RECORD.cells[0], outcome=Failure(stage=EVIL, error=BIDI, message=LONG + EVIL))
    )
    source = replace(record.source, name=f"{EVIL}{BIDI}{LONG}")
    machine = replace(
        record.machine,
        name=f"=1+1{EVIL}",
        cpu=EVIL + LONG,
        versions={EVIL: BIDI, "onnxruntime": LONG},
    )
    corpus = replace(record.corpus, name=f"$x$ **{EVIL}** | {LONG}")
    return replace(record, source=source, machine=machine, corpus=corpus, cells=tuple(cells))


def two_machines():
    """The same model on two machines."""
    other = replace(MEASURED, machine=replace(MEASURED.machine, name="board", cpu="Other CPU"))
    return [MEASURED, other]


def tokens_by_domain(folder):
    """The page of a tokenizer on the bundled corpus."""
    return corpus_page(
        study_corpus(load_tokenizers([str(REFERENCE)]), read_corpus("edgecap-mixed"))
    )


def tokens_by_language(folder):
    """The page of a tokenizer on one text in many languages, with what it costs;
    one language has a hostile name.
    """
    said = {
        "eng": "Rain fell on the hill. ",
        "deu": "Regen fiel auf den Hügel. ",
        "zho": "雨落在山上。",
        "x-evil": "Pluie. ",
    }
    names = {"x-evil": f"{EVIL}{BIDI}{LONG}"}
    rows = [
        {"language": code, "name": names.get(code, code), "articles": [text, text * 3]}
        for code, text in said.items()
    ]
    rows += [{"language": f"x-{n}", "articles": [chr(0x900 + n) * 9, "na"]} for n in range(60)]
    file = folder / "parallel.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    tokenizers = load_tokenizers([str(REFERENCE)])
    priced = with_energy()
    priced = replace(priced, source=replace(priced.source, tokenizer_sha256=tokenizers[0].sha256))
    return languages_page(study_languages(tokenizers, read_parallel(file), [priced]))
