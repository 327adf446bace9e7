"""Documents by how hard they are, and what size takes off."""

import json
import math

import msgspec
import numpy as np
import pytest
from boards import BASE
from click.testing import CliRunner
from conftest import REFERENCE

from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.ranking import rank_documents
from edgecap.record import Absent, DocumentBits
from edgecap.source import models_named, reference_models

replace = msgspec.structs.replace


def record(name, parameters, bits, **changes):
    """A record of one cell whose documents of 100 bytes cost so many bits each."""
    cell = BASE.cells[0]
    documents = tuple(
        DocumentBits(id=f"d{i}", domain="a", bytes=100 if b is not None else 0, tokens=10, nll_bits=b or 0.0)
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
    rows = rank_documents([large, small])
    assert [row.id for row in rows] == ["d2", "d0", "d1"] and [row.rank for row in rows] == [1, 2, 3]
    assert [list(row.bits_per_byte) for row in rows] == [["small", "large"]] * 3
    assert rows[1].bits_per_byte == {"small": 3.0, "large": 2.0}
    assert rows[1].bits_per_doubling == pytest.approx(-0.5)  # one bit less over two doublings


def test_the_slope_is_that_of_least_squares():
    sizes, bits = [1000, 3000, 20000], [310.0, 250.0, 180.0]
    (row,) = rank_documents([record(str(n), n, [b]) for n, b in zip(sizes, bits, strict=True)])
    wanted = np.polyfit([math.log2(n) for n in sizes], [b / 100 for b in bits], 1)[0]
    assert row.bits_per_doubling == pytest.approx(wanted)


def test_one_size_or_none_has_no_slope():
    assert rank_documents([record("a", 1000, [300])])[0].bits_per_doubling is None
    unknown = Absent(reason="no safetensors")
    assert rank_documents([record("a", unknown, [300]), record("b", unknown, [200])])[0].bits_per_doubling is None
    rows = rank_documents([record("a", 1000, [300]), record("a", 1000, [200])])
    assert rows[0].bits_per_doubling is None and list(rows[0].bits_per_byte) == ["a (1)", "a (2)"]


def test_empty_documents_are_left_out_and_keep_their_places():
    rows = rank_documents([record("a", 1000, [None, 300])])
    assert [(row.document, row.id) for row in rows] == [(2, "d1")]


def test_what_cannot_be_ranked_together_is_refused():
    with pytest.raises(UsageError, match="one text"):
        rank_documents([record("a", 1000, [300]), record("b", 2000, [300], context=17)])
    with pytest.raises(UsageError, match="nothing to rank"):
        rank_documents([replace(BASE, cells=())])


def test_the_series_and_lists_of_models():
    names = tuple(path.name for path in reference_models())
    assert models_named("edgecap-ref") == names and models_named("edgecap-ref,org/a") == (*names, "org/a")
    assert models_named(" a/b , c/d,a/b ") == ("a/b", "c/d")


def test_a_folder_with_a_comma_is_one_model(tmp_path):
    (tmp_path / "a,b").mkdir()
    assert models_named(str(tmp_path / "a,b")) == (str(tmp_path / "a,b"),)


@pytest.fixture
def unmeasured(monkeypatch):
    """Nothing may be measured."""
    monkeypatch.setattr("edgecap.cli.profile._measured", lambda *_: pytest.fail("a model was measured"))


def refused(*words):
    """What profile says of a request that it refuses."""
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(cli, ["profile", *map(str, words)], catch_exceptions=False)
    return str(caught.value)


@pytest.mark.parametrize("output", [".", "corpus.jsonl"])
def test_an_output_that_would_do_harm_is_refused_before_anything_is_measured(tmp_path, unmeasured, output):
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
