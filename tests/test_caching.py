"""The cache: what it holds, what may be removed from it,
and processes that want the same of it at once.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT
from fakes import scripted

from edgecap.cli.commands import cli
from edgecap.errors import UsageError
from edgecap.pipeline.export_folder import export_folder
from edgecap.pipeline.profile import profile
from edgecap.pipeline.worker import CompressBaselines, MeasureCell, MeasureLatency, Quantize
from edgecap.spec import Spec
from edgecap.storage import cache as caching
from edgecap.storage import locks
from edgecap.storage.cache import survey
from edgecap.storage.cache_prune import PruneOptions, prune
from edgecap.storage.files import resolve_paths
from edgecap.text import compressors
from edgecap.text.corpus import read_corpus

ALL = PruneOptions(everything=True)
DAY_S = 86_400


@pytest.fixture
def place(tmp_path):
    return resolve_paths(tmp_path / "kept", tmp_path / "profiles")


@pytest.fixture
def spec(corpus_file):
    return Spec(corpus=str(corpus_file), precisions=("fp32", "int8"))


@pytest.fixture
def corpus(corpus_file):
    return read_corpus(str(corpus_file))


@pytest.fixture
def full(spec, corpus, place):
    """The cache that a run leaves."""
    profile(spec, place, run=scripted(corpus))
    return place.cache


def edgecap(*words):
    """Exit status, and what was printed; edgecap's errors as the command line tells them."""
    found = CliRunner().invoke(cli, ["cache", *map(str, words)])
    if isinstance(found.exception, UsageError):
        return found.exception.exit_code, str(found.exception)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.output


def kinds(cache):
    return sorted(thing.kind for thing in survey(cache).things)


def aged(cache, kind, days):
    """Makes things of a kind as old."""
    for thing in survey(cache).things:
        if thing.kind == kind:
            path = cache / thing.path
            for each in (path, *path.glob("graph.json")):
                os.utime(each, (time.time() - days * DAY_S,) * 2)


# --- what there is ----------------------------------------------------------------------------


def test_each_thing_says_what_it_is(full):
    found = survey(full)
    assert kinds(full) == ["baselines", "export", "peaks", "variant"]
    assert [t.bytes for t in found.things] == sorted((t.bytes for t in found.things), reverse=True)
    export, variant = (
        next(t for t in found.things if t.kind == kind) for kind in ("export", "variant")
    )
    assert (export.model, export.precision) == (
        "edgecap-ref-xs",
        "fp32",
    ) and "optimum" in export.recipe
    assert variant.precision == "int8" and variant.bytes > 4000
    on_disk = sum(
        f.stat().st_size for f in full.rglob("*") if f.is_file() and f.parent.name != locks.FOLDER
    )
    assert found.bytes == on_disk


def test_the_command_lists_in_both_forms(full):
    status, text = edgecap("--cache", full)
    assert status == 0 and "edgecap-ref-xs int8" in text and "free on its disk" in text
    status, told = edgecap("list", "--cache", full, "--json")
    told = json.loads(told)
    assert set(told["kinds"]) == {"baselines", "export", "peaks", "variant"} and told["bytes"] > 0
    assert (
        told["things"][0]["last_used_utc"].endswith("Z")
        and told["things"][0]["path"].count("/") == 1
    )
    again = json.loads(edgecap("--json", "--cache", full, "list")[1])
    assert {**again, "free_bytes": 0} == {**told, "free_bytes": 0}  # others write on this disk


def test_nothing_kept_is_a_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "absent"):
        for words in ((), ("prune", "--all")):
            status, text = edgecap(*words, "--cache", folder)
            assert status == 0 and text.count("\n") == 1 and "nothing" in text
    assert not (tmp_path / "absent").exists()


def test_what_is_damaged_old_or_strange_is_listed(full):
    export, variant = (next(full.glob(f"{folder}/*")) for folder in ("exports", "variants"))
    (export / caching.ORIGIN_FILE).unlink()  # as edgecap wrote it before
    (variant / "graph.json").write_bytes(b"\xff{")
    next(full.glob("peaks/*")).write_text("[]")
    next(full.glob("baselines/*")).write_text("{")
    (full / "exports" / f".{'0' * 24}.abcd_123").mkdir()
    (full / "wheels").mkdir()
    (full / "wheels" / "a\x1b[2J").write_bytes(b"123")
    (full / "note.txt").write_text("mine")
    said = {t.path: (t.kind, t.what, t.ours) for t in survey(full).things}
    assert said[f"exports/{export.name}"][1] == "unknown model fp32"
    assert said[f"variants/{variant.name}"][1] == "damaged"
    assert {w for k, w, _ in said.values() if k in ("peaks", "baselines")} == {"damaged"}
    assert said[f"exports/.{'0' * 24}.abcd_123"][0] == "left over"
    assert said["wheels"] == ("wheels", "unknown to this edgecap", False)
    assert not said["note.txt"][2]
    status, text = edgecap("--cache", full)
    assert status == 0 and "left over" in text and "\x1b[2J" not in text


def test_pipes_are_not_read(full):
    variant = next(full.glob("variants/*"))
    (variant / "graph.json").unlink()
    os.mkfifo(variant / "graph.json")
    assert "damaged" in {t.what for t in survey(full).things}


# --- removing ---------------------------------------------------------------------------------


def test_all_removes_peaks_too_and_the_locks(full):
    before = survey(full).bytes
    found = prune(full, ALL)
    assert found.freed_bytes == before and found.left_bytes == 0 and not found.stayed
    assert kinds(full) == [] and not list((full / locks.FOLDER).iterdir())


def test_peaks_stay_unless_they_are_named(full):
    prune(full, PruneOptions(to_bytes=1))
    assert kinds(full) == ["peaks"]
    prune(full, PruneOptions(kind="peaks"))
    assert kinds(full) == []


def test_the_least_recently_used_goes_first(full):
    aged(full, "export", 3)
    aged(full, "baselines", 2)
    total = survey(full).bytes
    dry = prune(full, PruneOptions(to_bytes=total - 1), dry_run=True)
    assert [t.kind for t in dry.removed] == ["export"] and "export" in kinds(full)
    assert prune(full, PruneOptions(to_bytes=total)).removed == ()
    assert prune(full, PruneOptions(to_bytes=total - 1)).removed == dry.removed
    assert kinds(full) == ["baselines", "peaks", "variant"]


def test_a_graph_that_is_taken_again_is_young(full, spec, corpus, place):
    for kind in ("export", "variant", "baselines"):
        aged(full, kind, 40)
    run = scripted(corpus)
    profile(spec, place, run=run)
    assert not any(isinstance(step, Quantize | CompressBaselines) for step in run.asked)
    assert prune(full, PruneOptions(older_than_s=30 * DAY_S)).removed == ()


def test_choices_are_joined(full):
    aged(full, "variant", 40)
    chosen = prune(
        full, PruneOptions(older_than_s=30 * DAY_S, model="EDGECAP-ref-xs"), dry_run=True
    )
    assert [t.kind for t in chosen.removed] == ["variant"]
    assert prune(full, PruneOptions(model="edgecap"), dry_run=True).removed == ()
    assert (
        prune(full, PruneOptions(older_than_s=30 * DAY_S, kind="export"), dry_run=True).removed
        == ()
    )


def test_a_model_of_the_hub_is_known_without_its_organisation(full):
    origin = next(full.glob("variants/*")) / caching.ORIGIN_FILE
    origin.write_text('{"model": "org/Some-Model", "made_utc": ""}')
    for name in ("some-model", "org/some-model"):
        assert len(prune(full, PruneOptions(model=name), dry_run=True).removed) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say what to remove"),
        (("--dry-run",), "say what to remove"),
        (("--all", "--kind", "peaks"), "--all removes everything"),
        (("--to", "10 parsecs"), "'--to': 10 parsecs: its units are"),
        (("--to", "0"), "above 0"),
        (("--older-than", "30"), "write 30d, 12h or 90m"),
        (("--older-than", "-3d"), "above 0"),
        (("--kind", "varaint"), "did you mean 'variant'?"),
    ],
)
def test_what_cannot_be_meant_is_refused(full, words, said):
    before = kinds(full)
    status, text = edgecap("prune", "--cache", full, *words)
    assert status == 2 and said in text.strip().splitlines()[-1] and "Traceback" not in text
    assert kinds(full) == before


def test_the_command_says_what_it_freed(full):
    status, text = edgecap("prune", "--cache", full, "--kind", "variants", "--dry-run")
    assert (
        status == 0
        and "would remove variant edgecap-ref-xs int8" in text
        and "variant" in kinds(full)
    )
    status, told = edgecap("prune", "--cache", full, "--kind", "variant", "--json")
    told = json.loads(told)
    assert (
        status == 0 and told["freed_bytes"] == told["removed"][0]["bytes"] and not told["dry_run"]
    )
    status, text = edgecap("prune", "--cache", full, "--kind", "variant")
    assert status == 0 and "nothing to remove" in text
    status, text = edgecap("prune", "--cache", full, "--to", "1B")
    assert status == 1 and "freed" in text  # the peaks stay, and are more than that


# --- hostile folders --------------------------------------------------------------------------


def test_links_are_not_followed(full, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1" * 1_000_000)
    (full / "exports" / ("a" * 24)).symlink_to(outside)
    (full / "fused").symlink_to(outside)
    (full / "journals").mkdir(exist_ok=True)
    (full / "journals" / f"{'b' * 32}.jsonl").symlink_to(outside / "precious")
    (next(full.glob("variants/*")) / "weights").symlink_to(outside)
    assert survey(full).bytes < 100_000
    assert prune(full, ALL).stayed == ()
    assert (outside / "precious").exists() and (full / "fused").is_symlink()
    assert kinds(full) == ["export", "journal", "other"]


def test_what_edgecap_did_not_name_stays(full):
    mine = [
        full / "corpora" / "my-texts",
        full / "exports" / "thesis",
        full / "elsewhere" / ("a" * 24),
    ]
    for folder in mine:
        folder.mkdir(parents=True)
        (folder / "x").write_text("mine")
    prune(full, ALL)
    assert all((folder / "x").exists() for folder in mine)


def test_a_folder_that_is_no_cache_is_refused(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds nothing that edgecap keeps"):
        prune(tmp_path / "work", ALL)
    assert survey(tmp_path / "work").things == ()
    (tmp_path / "exports").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("/", tmp_path, tmp_path / "work" / "..", tmp_path.parent):
        with pytest.raises(UsageError, match="no cache folder"):
            prune(Path(folder), ALL)
        with pytest.raises(UsageError, match="no cache folder"):
            survey(Path(folder))
    with pytest.raises(UsageError, match="not a folder"):
        survey(tmp_path / "work" / "thesis.txt")


def test_what_is_being_written_stays(full):
    written, left = (full / "peaks" / f".cpu.json.abcdef{n:02}" for n in (1, 2))
    written.touch()
    left.touch()
    os.utime(left, (time.time() - 3600,) * 2)
    found = prune(full, PruneOptions(kind="left over"))
    assert [s.reason for s in found.stayed] == ["another process writes it"]
    assert written.exists() and not left.exists()


# --- in use -----------------------------------------------------------------------------------


def test_what_a_run_measures_stays(spec, corpus, place):
    answer, seen = scripted(corpus), []

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureCell | MeasureLatency):
            seen.append(prune(place.cache, ALL))
        return answer(step, watch, timeout_s)

    record = profile(spec, place, run=run)
    assert record.complete and len(seen) == 3
    assert {(s.thing.kind, s.reason) for s in seen[-1].stayed} == {
        ("export", "another process uses it"),
        ("variant", "another process uses it"),
    }
    assert not prune(place.cache, ALL).stayed and kinds(place.cache) == []


def test_what_is_being_made_stays(spec, corpus, place):
    answer, seen = scripted(corpus), []

    def run(step, watch, timeout_s):
        if isinstance(step, Quantize):
            seen.append(prune(place.cache, ALL))
        return answer(step, watch, timeout_s)

    profile(spec, place, run=run)
    assert {s.thing.kind: s.reason for s in seen[0].stayed}[
        "left over"
    ] == "another process makes it"


def test_a_text_of_the_hub_stays_while_it_is_measured(spec, corpus, place):
    kept = place.cache / "corpora" / ("c" * 16) / "commit" / "six.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(Path(spec.corpus).read_bytes())
    answer, seen = scripted(corpus), []

    def run(step, watch, timeout_s):
        if isinstance(step, MeasureLatency):
            seen.append({s.thing.kind for s in prune(place.cache, ALL).stayed})
        return answer(step, watch, timeout_s)

    profile(Spec(corpus=str(kept), precisions=("fp32",)), place, run=run)
    assert seen == [{"corpora", "export"}]


def test_a_run_that_fails_uses_nothing_afterwards(spec, corpus, place):
    def dies(step, watch, timeout_s):
        if isinstance(step, MeasureLatency):
            raise KeyboardInterrupt
        return scripted(corpus)(step, watch, timeout_s)

    with pytest.raises(Exception, match="interrupted"):
        profile(spec, place, run=dies)
    assert not prune(place.cache, ALL).stayed
    export_folder(
        Spec(precisions=("fp32",)), place.cache.parent / "out", place, run=scripted(corpus)
    )
    assert not prune(place.cache, ALL).stayed


def test_without_locks_a_run_goes_on_and_nothing_is_removed(spec, corpus, place):
    place.cache.mkdir()
    (place.cache / locks.FOLDER).write_text("no folder")
    events = []
    assert profile(spec, place, events.append, scripted(corpus)).complete
    assert any("going on without a lock" in event.stage for event in events)
    found = prune(place.cache, PruneOptions(kind="variant"))
    assert [s.refused for s in found.stayed] == [True] and "variant" in kinds(place.cache)
    assert edgecap("prune", "--cache", place.cache, "--kind", "variant")[0] == 1


# --- several processes ------------------------------------------------------------------------

SCRIPT = """
import os, sys, time
from pathlib import Path
from fakes import scripted
from edgecap.pipeline import worker
from edgecap.text.corpus import read_corpus
from edgecap.pipeline.profile import profile
from edgecap.spec import Spec
from edgecap.storage.files import resolve_paths

text, folder, stop = sys.argv[1], Path(sys.argv[2]), getattr(worker, sys.argv[3])
answer = scripted(read_corpus(text))

def run(step, watch, timeout_s):
    if isinstance(step, stop):
        with (folder / "log").open("a") as log:
            log.write(f"{os.getpid()}\\n")
        while not (folder / "go").exists():
            time.sleep(0.02)
    return answer(step, watch, timeout_s)

spec = Spec(corpus=text, precisions=("int8",))
paths = resolve_paths(folder / "cache", folder / "profiles")
profile(spec, paths, lambda event: print(event.stage, flush=True), run)
"""


@pytest.fixture
def begin(corpus_file, tmp_path):
    """Starts a process that profiles int8 and stops at a step until the file `go` is there."""
    started = []

    def start(stop):
        told = [sys.executable, "-c", SCRIPT, str(corpus_file), str(tmp_path), stop]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        process = subprocess.Popen(
            told, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def heard(process, words):
    """Waits for a line with these words."""
    return next(line for line in process.stdout if words in line)


def logged(folder, count):
    """The processes that came to the step, once there are so many."""
    for _ in range(1500):
        log = folder / "log"
        if log.exists() and len(log.read_text().splitlines()) >= count:
            return [int(line) for line in log.read_text().splitlines()]
        time.sleep(0.02)
    raise AssertionError("nobody came to the step")


def test_two_processes_make_a_variant_once(begin, tmp_path):
    first = begin("Quantize")
    assert logged(tmp_path, 1) == [first.pid]
    second = begin("Quantize")
    assert heard(second, "waiting for another process that makes int8")
    (tmp_path / "go").touch()
    assert first.communicate() and second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert logged(tmp_path, 1) == [first.pid]
    assert len(list((tmp_path / "profiles").glob("*.json"))) == 2


@pytest.mark.kill
def test_a_killed_maker_is_followed_by_who_waits(begin, tmp_path):
    first = begin("Quantize")
    logged(tmp_path, 1)
    second = begin("Quantize")
    heard(second, "waiting for another process")
    first.send_signal(signal.SIGKILL)
    assert logged(tmp_path, 2) == [first.pid, second.pid]
    (tmp_path / "go").touch()
    second.communicate()
    assert second.returncode == 0
    assert "left over" in kinds(tmp_path / "cache")
    assert not prune(tmp_path / "cache", ALL).stayed and kinds(tmp_path / "cache") == []


def test_a_killed_run_uses_nothing(begin, tmp_path):
    cache, process = tmp_path / "cache", begin("MeasureLatency")
    logged(tmp_path, 1)
    assert {s.thing.kind for s in prune(cache, ALL).stayed} == {"export", "variant"}
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(cache.glob(f"{locks.FOLDER}/*.used"))
    assert not prune(cache, PruneOptions(to_bytes=1)).stayed
    assert kinds(cache) == [] and not list(cache.glob(f"{locks.FOLDER}/*.used"))


# --- baselines --------------------------------------------------------------------------------


def test_a_corpus_is_squeezed_once(spec, corpus, place):
    runs = [scripted(corpus) for _ in range(3)]
    records = [profile(spec, place, run=runs[0]), profile(spec, place, run=runs[1])]
    kept = next(place.cache.glob("baselines/*"))
    kept.write_bytes(kept.read_bytes()[:-5])
    records.append(profile(spec, place, run=runs[2]))
    assert [sum(isinstance(s, CompressBaselines) for s in run.asked) for run in runs] == [1, 0, 1]
    assert len({str(r.corpus.baselines) for r in records}) == 1 and records[0].corpus.baselines


def test_baselines_depend_on_the_text_and_on_the_compressors(tmp_path, monkeypatch):
    here = compressors.baselines_path(tmp_path, "a" * 64, 1000)
    assert here.name.startswith("a" * 64)
    assert here != compressors.baselines_path(
        tmp_path, "b" * 64, 1000
    ) and here != compressors.baselines_path(tmp_path, "a" * 64, 999)
    monkeypatch.setattr(compressors.zlib, "ZLIB_RUNTIME_VERSION", "9.9")
    assert here != compressors.baselines_path(tmp_path, "a" * 64, 1000)


def test_baselines_that_cannot_be_kept_break_nothing(tmp_path):
    (tmp_path / "file").touch()
    compressors.write_baselines(tmp_path / "file" / "x.json", {})
    assert compressors.read_baselines(tmp_path / "file" / "x.json") == {}
