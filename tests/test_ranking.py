"""Documents by how hard they are, and what size takes off."""

import json
import math

import msgspec
import numpy as np
import pytest
from boards import BASE
from click.testing import CliRunner
from conftest import REFERENCE

from edgecap.analysis.ranking import rank_documents
from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.model.reference_models import expand_names, reference_models
from edgecap.record import Absent, DocumentBits
from edgecap.report.terminal.ranking import ranked_text

replace = msgspec.structs.replace


def record(name, parameters, bits, **changes):
    """A record of one cell whose documents of 100 bytes cost so many bits each."""
    cell = BASE.cells[0]
    documents = tuple(
        DocumentBits(
            id=f"d{i}", domain="a", bytes=100 if b is not None else 0, tokens=10, nll_bits=b or 0.0
        )
        for i, b in enumerate(bits)
    )
    compression = replace(cell.outcome.compression, per_document=documents, **changes)
    return replace(
        BASE,
        source=replace(BASE.source, name=name, parameters=parameters),
        cells=(replace(cell, outcome=replace(cell.outcome, compression=compression)),),
    )


def test_the_hardest_under_the_largest_model_comes_first():
    small, large = record("small", 1000, [300, 200, 250]), record("large", 4000, [200, 190, 240])
    rows = rank_documents([large, small]).documents
    assert [row.id for row in rows] == ["d2", "d0", "d1"] and [row.rank for row in rows] == [
        1,
        2,
        3,
    ]
    assert [list(row.bits_per_byte) for row in rows] == [["small", "large"]] * 3
    assert rows[1].bits_per_byte == {"small": 3.0, "large": 2.0}
    assert rows[1].bits_per_doubling == pytest.approx(-0.5)  # one bit less over two doublings


def test_the_slope_is_that_of_least_squares():
    sizes, bits = [1000, 3000, 20000], [310.0, 250.0, 180.0]
    (row,) = rank_documents(
        [record(str(n), n, [b]) for n, b in zip(sizes, bits, strict=True)]
    ).documents
    wanted = np.polyfit([math.log2(n) for n in sizes], [b / 100 for b in bits], 1)[0]
    assert row.bits_per_doubling == pytest.approx(wanted)


def test_one_size_or_none_has_no_slope():
    assert rank_documents([record("a", 1000, [300])]).documents[0].bits_per_doubling is None
    unknown = Absent(reason="no safetensors")
    assert (
        rank_documents([record("a", unknown, [300]), record("b", unknown, [200])]).bits_per_doubling
        is None
    )
    rows = rank_documents([record("a", 1000, [300]), record("a", 1000, [200])]).documents
    assert rows[0].bits_per_doubling is None and list(rows[0].bits_per_byte) == ["a (1)", "a (2)"]


def test_empty_documents_are_left_out_and_keep_their_places():
    rows = rank_documents([record("a", 1000, [None, 300])]).documents
    assert [(row.document, row.id) for row in rows] == [(2, "d1")]


def test_what_cannot_be_ranked_together_is_refused():
    with pytest.raises(UsageError, match="one text"):
        rank_documents([record("a", 1000, [300]), record("b", 2000, [300], context=17)])
    with pytest.raises(UsageError, match="nothing to rank"):
        rank_documents([replace(BASE, cells=())])
    with pytest.raises(UsageError, match="no precision was scored with all models"):
        rank_documents([record("a", 1000, [300]), in_precision(record("b", 2000, [300]), "int8")])


def in_precision(one, *names):
    """The record with its cell in those precisions."""
    return replace(one, cells=tuple(replace(one.cells[0], precision=name) for name in names))


def test_the_first_precision_that_all_scored_counts():
    small, large = record("small", 1000, [300]), record("large", 4000, [200])
    found = rank_documents(
        [in_precision(small, "fp32", "fp16", "int8"), in_precision(large, "int8", "fp16")]
    )
    assert (found.precision, found.provider) == ("fp16", "cpu")


def test_the_screen_shows_the_hardest_and_what_size_takes_off():
    small, large = (
        record("small", 1000, [300, 200, 250, 150, 140]),
        record("large", 4000, [100, 190, 250, 170, 20]),
    )
    shown = ranked_text(rank_documents([large, small]), 80)
    hardest, eased = shown.split("\n\n")
    assert hardest.startswith(
        f"5 documents of {BASE.corpus.name}, the hardest under large (fp32 on cpu)"
    )
    assert [line.split()[0] for line in hardest.splitlines()[-3:]] == ["d2", "d1", "d3"]
    assert [line.split()[0] for line in eased.splitlines()[-3:]] == ["d0", "d4", "d1"]
    assert eased.splitlines()[-1].split() == ["d1", "a", "100", "2.000", "1.900", "-0.050"]
    assert "the median document changes by -0.050 bits/byte" in " ".join(eased.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_the_screen_of_one_size_and_of_none_that_is_eased():
    alone = ranked_text(rank_documents([record("a", 1000, [300])]), 80)
    assert alone.startswith("1 document of") and "doubling" not in alone
    harder = ranked_text(rank_documents([record("a", 1000, [300]), record("b", 2000, [310])]), 200)
    assert (
        "Size takes nothing off any document; with each doubling" in harder and "+0.100" in harder
    )


def test_profile_writes_and_shows_them_and_writes_over_its_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "edgecap.cli.profile._measured", lambda spec, *_: record(spec.model, 1000, [300, 400])
    )
    file, asked = tmp_path / "ranked.jsonl", ["profile", "--rank-documents"]
    for more, shown in (([], True), (["--json"], False)):
        run = CliRunner().invoke(cli, [*asked, str(file), *more], catch_exceptions=False)
        assert run.exit_code == 0 and ("the hardest under" in run.stdout) is shown
        assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["d1", "d0"]


def test_the_series_and_lists_of_models():
    names = tuple(path.name for path in reference_models())
    assert expand_names("edgecap-ref") == names and expand_names("edgecap-ref,org/a") == (
        *names,
        "org/a",
    )
    assert expand_names(" a/b , c/d,a/b ") == ("a/b", "c/d")


def test_a_folder_with_a_comma_is_one_model(tmp_path):
    (tmp_path / "a,b").mkdir()
    assert expand_names(str(tmp_path / "a,b")) == (str(tmp_path / "a,b"),)


@pytest.fixture
def unmeasured(monkeypatch):
    """Nothing may be measured."""
    monkeypatch.setattr(
        "edgecap.cli.profile._measured", lambda *_: pytest.fail("a model was measured")
    )


def refused(*words):
    """What profile says of a request that it refuses."""
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(cli, ["profile", *map(str, words)], catch_exceptions=False)
    return str(caught.value)


@pytest.mark.parametrize("output", [".", "corpus.jsonl"])
def test_an_output_that_would_do_harm_is_refused_before_anything_is_measured(
    tmp_path, unmeasured, output
):
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": "words"}) + "\n")
    said = refused("--corpus", tmp_path / "corpus.jsonl", "--rank-documents", tmp_path / output)
    assert "give another file" in said


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("edgecap-ref-xs,nope", "no model 'nope'"),
        ("edgecap-ref-xs,edgecap-ref-xs", "has edgecap-ref-xs twice"),
        ("edgecap-ref,edgecap-ref-s", "has edgecap-ref-s twice"),
        (f"edgecap-ref-xs,{REFERENCE}", "twice"),
        ("org/a,org/a", "has org/a twice"),
        (" , ", "names no model"),
    ],
)
def test_every_model_of_a_list_is_found_before_the_first_is_measured(unmeasured, models, said):
    assert said in refused("--model", models)


def test_a_foreign_file_is_refused_before_anything_is_measured(tmp_path, unmeasured):
    (tmp_path / "notes.txt").write_text("notes")
    assert "give another --rank-documents" in refused("--rank-documents", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "notes"
