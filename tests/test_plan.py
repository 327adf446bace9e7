"""Plans: what can be written, what cannot, and what makes a cell the same cell."""

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from conftest import REFERENCE

from edgecap.errors import UsageError
from edgecap.model.reference_models import series_members
from edgecap.spec import DEFAULT_PRECISIONS, Spec
from edgecap.sweep import plan as planning
from edgecap.sweep.fingerprint import corpus_fingerprint, model_fingerprint
from edgecap.sweep.plan import read_plan, unfold


def cells(tmp_path, **asked):
    """The cells of a plan over the reference model, in fp32 unless asked otherwise."""
    return unfold({"precisions": "fp32", **asked}, tmp_path, tmp_path / "kept")


def written(tmp_path, text):
    path = tmp_path / "plan.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_plan(path, tmp_path / "kept")


def model(folder):
    """A copy of the reference model."""
    shutil.copytree(REFERENCE, folder)
    return folder


# --- what it unfolds into ---------------------------------------------------------------------


def test_every_combination_of_the_axes_is_a_cell(tmp_path):
    found = cells(
        tmp_path,
        precisions=["fp32", "int8"],
        contexts=[16, 32],
        batches=[1, 4],
        providers=["cpu", "cuda"],
    )
    assert len(found) == len({cell.key for cell in found}) == 16
    assert {cell.spec.precisions for cell in found} == {("fp32",), ("int8",)}
    assert all(len(cell.spec.batches) == len(cell.spec.providers) == 1 for cell in found)


def test_what_is_left_out_is_as_usual(tmp_path):
    found = unfold({"models": REFERENCE.name}, tmp_path, tmp_path / "kept")
    assert tuple(cell.spec.precisions[0] for cell in found) == DEFAULT_PRECISIONS
    assert found[0].spec == Spec(precisions=("fp32",)) and found[0].device == ""


def test_a_cell_that_is_in_twice_is_one(tmp_path):
    asked = {
        "precisions": ["fp32", "FP32", " fp32"],
        "batches": [1, 1],
        "also": [{"batches": [1, 2]}],
    }
    assert [cell.spec.batches for cell in cells(tmp_path, **asked)] == [(1,), (2,)]


def test_more_cells_are_as_above_but_for_what_they_say(tmp_path):
    text = """
    precision = "fp32"
    context = 64
    [options]
    documents = 4
    limit_s = 2
    [[also]]
    contexts = [128, 256]
    options.documents = 9
    """
    found = [
        (cell.spec.context, cell.spec.documents, cell.spec.limit_s)
        for cell in written(tmp_path, text)
    ]
    assert found == [(64, 4, 2.0), (128, 9, 2.0), (256, 9, 2.0)]


def test_a_plan_of_blocks_alone_has_only_their_cells(tmp_path):
    found = written(
        tmp_path,
        "[options]\ndocuments = 3\n[[also]]\nprecisions = 'int8'\n[[also]]\nprecisions = 'int4'\n",
    )
    assert [cell.spec.precisions for cell in found] == [("int8",), ("int4",)]
    assert {cell.spec.documents for cell in found} == {3}


def test_paths_are_relative_to_the_plan(tmp_path):
    here = tmp_path / "plans"
    model(here / "mine")
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("words")
    (cell,) = unfold(
        {"models": "./mine", "corpora": "texts/a.txt", "precisions": "fp32"},
        here,
        tmp_path / "kept",
    )
    assert (cell.spec.model, cell.spec.corpus) == (
        str(here / "mine"),
        str(here / "texts" / "a.txt"),
    )
    assert str(cell) == "mine, fp32 on cpu, a"


def test_a_mark_of_byte_order_is_no_mistake(tmp_path):
    assert len(written(tmp_path, b"\xef\xbb\xbfprecision = 'fp32'\r\n")) == 1


def test_a_model_on_the_hub_is_not_fetched_to_make_a_list(tmp_path):
    (cell,) = cells(tmp_path, models="org/name@v1.0")
    assert cell.spec.model == "org/name@v1.0" and cell.file_name.startswith(
        "name-v1.0--fp32--cpu--"
    )


# --- what cannot be asked ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models = [", "is not TOML"),
        (b"models = '\xff'", "is not TOML"),
        ("batches = " + "9" * 5000, "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("batches = 0x" + "f" * 5000, "whole numbers"),
        ("", "names nothing to measure"),
        ("[options]\ndocuments = 3", "names nothing to measure"),
        ("model = 'a'\nmodels = 'b'", "'models' is given twice"),
        ("modles = 'a'", "did you mean 'models'"),
        ("documents = 3", "goes below [options]"),
        ("x = 1", "unknown 'x'"),
        ("'\\u001B[31m' = 1", "unknown"),
        ("models = []", "'models' is empty"),
        ("contexts = []", "'contexts' is empty"),
        ("models = ''", "none of them empty"),
        ("models = 3", "holds names"),
        ("models = ['a', 1]", "holds names"),
        ("models = {a = 1}", "holds names"),
        ("models = 1979-05-27", "holds names"),
        ("contexts = '64'", "whole numbers"),
        ("contexts = true", "whole numbers"),
        ("contexts = 1.5", "whole numbers"),
        ("contexts = 1", "`context` 1"),
        ("batches = 0", "whole numbers"),
        ("batches = 5000", "`batches` 5000"),
        ("device = 'a'\nshards = 0", "'shards'"),
        ("precisions = 'int9'", "did you mean 'int8'"),
        ("providers = 'nope'", "unknown provider"),
        ("providers = 'cpu:a=1'", "cpu takes no options"),
        ("models = './nowhere'", "no model './nowhere'"),
        ("models = '~nobody-at-all/x'", "no usable name"),
        ("models = '" + "x" * 5000 + "'", "no usable name"),
        ("models = 'edgecap-ref-xxs'", "did you mean 'edgecap-ref-xs'"),
        ("corpora = 'nowhere.jsonl'", "is not there"),
        ("corpora = '" + "x" * 5000 + "'", "is not there"),
        ("corpora = '.'", "is a folder"),
        ("also = 1", "write [[also]]"),
        ("also = ['a']", "write [[also]]"),
        ("[[also]]\nmodles = 'a'", "block 1 of [[also]]: unknown 'modles'"),
        ("[[also]]\nalso = []", "at the top of the plan"),
        ("model = 'edgecap-ref-xs'\noptions = 3", "write [options]"),
        ("[[also]]\noptions = 3", "write [options]"),
        ("device = 'a'\n[options]\ndocuments = '3'", "[options] documents: Expected int"),
        ("device = 'a'\n[options]\naffinity = [0, 'a']", "[options] affinity"),
        ("device = 'a'\n[options]\ndocumints = 3", "did you mean 'documents'"),
        ("device = 'a'\n[options]\ncontext = 3", "write contexts above [options]"),
        ("device = 'a'\n[options]\nlimit_s = nan", "`limit_s` nan"),
        ("device = 'a'\n[options]\nbias_bits = inf", "not a finite number"),
        (
            "device = 'a'\n[options]\nprotocol = 'paper'\nstride = 3",
            "`stride` belongs to the exact protocol",
        ),
    ],
)
def test_a_wrong_plan_is_told_in_a_line(tmp_path, text, told):
    with pytest.raises(UsageError) as error:
        written(tmp_path, text)
    assert told in str(error.value) and str(error.value).count("plan.toml") == 1
    assert len(str(error.value)) < 700


def test_a_plan_that_is_not_there_or_a_folder_is_told(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot read the plan"):
            read_plan(path, tmp_path)


def test_a_plan_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "MOST_CELLS", 10)
    with pytest.raises(UsageError, match="more than 10 cells"):
        cells(tmp_path, contexts=list(range(2, 20)))


@pytest.mark.parametrize(
    "text",
    [
        "trust_remote_code = true",
        "[options]\ntrust_remote_code = true",
        "[[also]]\ntrust_remote_code = true",
        "[[also]]\noptions.trust_remote_code = true",
        "[[also]]\n[also.options]\n'trust_remote_code' = false",
    ],
)
def test_no_plan_lets_code_of_a_model_run(tmp_path, text):
    with pytest.raises(UsageError, match="cannot let code of a model run"):
        written(tmp_path, f"device = 'a'\n{text}")


def test_a_wall_meter_is_not_for_a_plan(tmp_path):
    with pytest.raises(UsageError, match="edgecap profile --meter"):
        written(tmp_path, "device = 'a'\n[options]\nmeter = '/dev/zero'")


# --- names from anywhere ----------------------------------------------------------------------

HOSTILE = [
    "a\nb",
    "\x1b[31mred\x1b]0;title\x07",
    "..hidden",
    "名前",
    "x" * 200,
    "a b;$(touch x)|&",
    "-rf",
    "con",
    "\u202egpj",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_reaches_a_file_name(tmp_path, name):
    model(tmp_path / name)
    (tmp_path / f"{name}.txt").write_text("words")
    (cell,) = cells(tmp_path, models=f"./{name}", corpora=f"{name}.txt", device=name)
    assert re.fullmatch(r"[A-Za-z0-9][\w.-]{0,230}\.json", cell.file_name, re.ASCII)
    assert ".." not in cell.file_name


def test_a_name_that_no_record_can_tell_is_refused(tmp_path):
    folder = tmp_path / "na\udcffme"
    model(folder)
    with pytest.raises(UsageError, match="not UTF-8"):
        cells(tmp_path, models="./na\udcffme")
    with pytest.raises(UsageError, match="not UTF-8"):  # nor may the plan's own folder have one
        unfold({"models": "./../na\udcffme"}, folder, tmp_path / "kept")


# --- keys -------------------------------------------------------------------------------------


def test_the_same_content_elsewhere_is_the_same_cell(tmp_path):
    model(tmp_path / "a")
    model(tmp_path / "elsewhere" / "b")
    (tmp_path / "t.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "u.jsonl").write_text('{"text": "x"}\n')
    (one,) = cells(tmp_path, models="./a", corpora="t.jsonl")
    (other,) = cells(tmp_path, models="./elsewhere/b", corpora="u.jsonl")
    assert one.key == other.key


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("part", ["model.safetensors", "tokenizer.json", "config.json"])
def test_other_content_is_another_cell(tmp_path, part):
    folder = model(tmp_path / "a")
    (before,) = cells(tmp_path, models="./a")
    content = (folder / part).read_bytes()
    (folder / part).write_bytes(content + b"\n" if part.endswith("json") else flipped(content))
    (after,) = cells(tmp_path, models="./a")
    assert before.key != after.key


def test_a_graph_behind_a_link_keeps_its_name_and_is_another_cell_than_its_neighbour(tmp_path):
    """As in the Hub's cache, where a link leads to a blob without a suffix."""
    folder = model(tmp_path / "a")
    (folder / "onnx").mkdir()
    for name in ("model.onnx", "model_q4.onnx"):
        (tmp_path / f"blob-{name}").write_bytes(name.encode())
        (folder / "onnx" / name).symlink_to(tmp_path / f"blob-{name}")
    names = ["./a/onnx/model.onnx", "./a/onnx/model_q4.onnx"]
    one, two = cells(tmp_path, models=names, precisions="fp32")
    assert one.key != two.key
    assert [one.spec.model, two.spec.model] == [str(tmp_path / name) for name in names]


def test_a_file_for_people_changes_no_key(tmp_path):
    folder = model(tmp_path / "a")
    (before,) = cells(tmp_path, models="./a")
    (folder / "README.md").write_text("news")
    (folder / ".hidden").write_text("news")
    assert cells(tmp_path, models="./a")[0].key == before.key


def test_every_axis_and_option_makes_another_key(tmp_path):
    changed = [
        {"contexts": 64},
        {"batches": 2},
        {"providers": "cuda"},
        {"precisions": "int8"},
        {"device": "a"},
    ]
    changed += [
        {"options": {name: value}}
        for name, value in {"documents": 2, "threads": 1, "arena": False}.items()
    ]
    keys = {cells(tmp_path, **change)[0].key for change in [{}, *changed]}
    assert len(keys) == len(changed) + 1


def test_what_does_not_change_the_numbers_makes_no_other_key(tmp_path):
    (usual,) = cells(tmp_path)
    for same in ({"options": {"timeout_s": 5.0}}, {"options": {"arena": True}}, {"shards": 4}):
        assert cells(tmp_path, **same)[0].key == usual.key


def test_a_new_option_changes_no_key(tmp_path, monkeypatch):
    (before,) = cells(tmp_path, options={"documents": 3})

    class NewSpec(Spec, frozen=True, forbid_unknown_fields=True, kw_only=True):
        novel: int = 7

    monkeypatch.setattr(planning, "Spec", NewSpec)
    (after,) = cells(tmp_path, options={"documents": 3})
    assert isinstance(after.spec, NewSpec) and after.key == before.key


def test_keys_stay_what_they_are(tmp_path):
    """A change here orphans the records of sweeps that people have begun."""
    (tmp_path / "t.txt").write_text("words")
    found = cells(
        tmp_path, models="org/name", corpora="t.txt", contexts=64, options={"documents": 3}
    )
    assert found[0].key == "58d12b9f3174c1ef"


def test_renamed_precisions_keep_their_cells_and_new_ones_have_other_keys(tmp_path):
    (tmp_path / "t.txt").write_text("words")
    names = ["int8d", "int4b32", "int8", "int4"]
    found = cells(tmp_path, models="org/name", corpora="t.txt", precisions=names)
    assert [c.key for c in found[:2]] == [
        "276a736ffa22846b",
        "9836204024808d1a",
    ]  # of int8 and int4, then
    assert len({c.key for c in found}) == 4


# --- hashes that are remembered ---------------------------------------------------------------


def test_files_are_read_once(tmp_path, monkeypatch):
    folder = model(tmp_path / "a")
    first = model_fingerprint(str(folder), tmp_path / "kept")
    with monkeypatch.context() as patch:
        patch.setattr(
            "edgecap.storage.files.sha256_of_file", lambda path: pytest.fail("read again")
        )
        assert model_fingerprint(str(folder), tmp_path / "kept") == first
    (folder / "config.json").touch()
    assert model_fingerprint(str(folder), tmp_path / "kept") == first


@pytest.mark.parametrize("rubbish", [b"", b"\xff\xfe\x00", b"[1, 2]", b'{"a": 3}'])
def test_a_damaged_memory_costs_only_time(tmp_path, rubbish):
    text = tmp_path / "t.txt"
    text.write_text("words")
    first = corpus_fingerprint(str(text), tmp_path / "kept")
    (tmp_path / "kept" / "hashes.json").write_bytes(rubbish)
    assert corpus_fingerprint(str(text), tmp_path / "kept") == first
    assert json.loads((tmp_path / "kept" / "hashes.json").read_bytes())


def test_a_text_with_another_ending_is_another_text(tmp_path):
    for name in ("t.txt", "t.jsonl"):
        (tmp_path / name).write_text('{"text": "x"}\n')
    assert (
        len({corpus_fingerprint(str(tmp_path / name), tmp_path) for name in ("t.txt", "t.jsonl")})
        == 2
    )


def test_a_folder_of_graphs_tells_its_precisions(tmp_path):
    folder = tmp_path / "graphs"
    folder.mkdir()
    (folder / "config.json").write_bytes((REFERENCE / "config.json").read_bytes())
    told = {
        "graphs": [{"precision": p, "folder": p, "files": []} for p in ("fp32", "int8")],
        "source": {},
    }
    (folder / "edgecap.json").write_bytes(msgspec.json.encode(told))
    found = unfold({"models": "./graphs"}, tmp_path, tmp_path / "kept")
    assert [cell.spec.precisions[0] for cell in found] == ["fp32", "int8"]
    (folder / "edgecap.json").unlink()
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="give their precisions"):
        unfold({"models": "./graphs"}, tmp_path, tmp_path / "kept")


def test_the_reference_series_is_each_of_its_models(tmp_path):
    cells = unfold(
        {"models": ["edgecap-ref", "edgecap-ref-xs"], "precisions": "fp32"},
        tmp_path,
        tmp_path / "cache",
    )
    assert [Path(cell.spec.model).name for cell in cells] == list(series_members())
