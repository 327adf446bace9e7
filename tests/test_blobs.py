"""Files that come in pieces from somebody else: only what has its hash is kept,
and nothing leads out of the folder.
"""

import hashlib
import os

import pytest

from edgecap.errors import DiskFull, UsageError
from edgecap.record import File
from edgecap.storage import content as room
from edgecap.storage.content import ContentStore

DATA = bytes(range(256)) * 40


def file(data=DATA, path="x", size=None, sha256=None):
    return File(
        path=path,
        bytes=len(data) if size is None else size,
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
    )


@pytest.fixture
def blobs(tmp_path):
    return ContentStore(tmp_path / "cache")


def sent(blobs, wanted, data=DATA, step=1000):
    at = blobs.received_bytes(wanted)
    while not blobs.append(wanted, at, data[at : at + step]):
        at += step


def test_a_file_comes_in_pieces_and_goes_on_where_it_was_cut_off(blobs, tmp_path):
    wanted = file()
    assert blobs.missing([wanted, wanted]) == (wanted,) and blobs.received_bytes(wanted) == 0
    assert not blobs.append(wanted, 0, DATA[:3000])
    again = ContentStore(tmp_path / "cache")
    assert again.received_bytes(wanted) == 3000
    sent(again, wanted)
    assert again.missing([wanted]) == () and again.path(wanted.sha256).read_bytes() == DATA
    assert not list((tmp_path / "cache" / "blobs").glob("*.part"))


def test_an_empty_file_is_one_piece(blobs):
    assert blobs.append(file(b""), 0, b"")
    assert blobs.missing([file(b"")]) == ()


@pytest.mark.parametrize(
    ("offset", "data"),
    [(1, DATA[:10]), (-1, DATA[:10]), (10**18, b"x"), (0, DATA + b"x"), (len(DATA), b"")],
)
def test_pieces_out_of_order_are_refused_and_cost_nothing(blobs, offset, data):
    wanted = file()
    with pytest.raises(UsageError, match="does not fit"):
        blobs.append(wanted, offset, data)
    assert blobs.received_bytes(wanted) == 0
    sent(blobs, wanted)


def test_what_has_another_hash_is_thrown_away(blobs):
    lie = file(sha256="0" * 64)
    with pytest.raises(UsageError, match="another hash"):
        sent(blobs, lie)
    assert blobs.missing([lie]) == (lie,) and blobs.received_bytes(lie) == 0


def test_a_rest_of_a_file_that_said_another_size_is_no_beginning(blobs):
    long = file(size=100_000)
    blobs.append(long, 0, DATA + b"more")
    sent(blobs, file())
    assert blobs.missing([file()]) == ()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../" * 21 + "x",
        "A" * 64,
        "0" * 63,
        "0" * 65,
        "0" * 64 + "\n",
        "0" * 63 + "/",
        "٠" * 64,
        "/etc/passwd",
    ],
)
def test_a_name_that_is_no_hash_is_no_path(blobs, name):
    with pytest.raises(UsageError, match="no SHA-256"):
        blobs.append(file(sha256=name or " "), 0, b"")


def test_links_that_lie_there_are_not_followed(blobs, tmp_path):
    outside, wanted = tmp_path / "outside", file()
    outside.write_bytes(b"mine")
    folder = tmp_path / "cache" / "blobs"
    folder.mkdir(parents=True)
    (folder / f"{wanted.sha256}.part").symlink_to(outside)
    with pytest.raises(UsageError, match="cannot write"):
        blobs.append(wanted, 0, DATA)
    assert outside.read_bytes() == b"mine"
    (folder / f"{wanted.sha256}.part").unlink()
    outside.write_bytes(DATA)
    (folder / wanted.sha256).symlink_to(outside)
    assert blobs.missing([wanted]) == (wanted,)
    sent(blobs, wanted)
    assert not (folder / wanted.sha256).is_symlink() and outside.read_bytes() == DATA


def test_a_folder_is_laid_out_of_what_is_whole(blobs, tmp_path):
    wanted = file(path="fp32/model.onnx")
    sent(blobs, wanted)
    blobs.link_into([wanted], tmp_path / "one")
    assert (tmp_path / "one" / "fp32" / "model.onnx").read_bytes() == DATA
    kept = blobs.path(wanted.sha256)
    kept.write_bytes(DATA[::-1])
    with pytest.raises(UsageError, match="damaged"):
        blobs.link_into([wanted], tmp_path / "two")
    assert blobs.missing([wanted]) == (wanted,)


def test_without_hard_links_files_are_copied(blobs, tmp_path, monkeypatch):
    sent(blobs, file())
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    blobs.link_into([file()], tmp_path / "one")
    assert (tmp_path / "one" / "x").read_bytes() == DATA


def test_a_shared_folder_is_looked_into_and_not_believed(tmp_path):
    shared, wanted = ContentStore(tmp_path / "shared"), file()
    (tmp_path / "source").write_bytes(DATA)
    shared.add(tmp_path / "source", wanted)
    shared.add(tmp_path / "source", wanted)
    assert ContentStore(tmp_path / "one", tmp_path / "shared").missing([wanted]) == ()
    shared.path(wanted.sha256).write_bytes(DATA[::-1])
    assert ContentStore(tmp_path / "two", tmp_path / "shared").missing([wanted]) == (wanted,)
    assert ContentStore(tmp_path / "two", tmp_path / "nowhere").missing([wanted]) == (wanted,)
    with pytest.raises(UsageError, match="another hash"):
        shared.add(tmp_path / "source", file(b"other", size=len(DATA)))
    assert sorted(path.name for path in (tmp_path / "shared" / "blobs").iterdir()) == [
        wanted.sha256
    ]


def test_a_full_disk_is_told_and_goes_on_later(blobs, monkeypatch):
    wanted = file()
    blobs.append(wanted, 0, DATA[:1000])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(DiskFull):
        patched.setattr(room.os, "fdopen", full)
        blobs.append(wanted, 1000, DATA[1000:])
    sent(blobs, wanted)
