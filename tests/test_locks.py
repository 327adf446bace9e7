"""locks: a thing in use is seen by who removes things, whatever else happens at that moment."""

import threading

import pytest

from edgecap.storage import locks


@pytest.fixture
def thing(tmp_path):
    folder = tmp_path / "exports" / ("a" * 24)
    folder.mkdir(parents=True)
    return folder


def alone(thing):
    return locks.build_lock(thing, lambda: None, pytest.fail)


def reason(thing):
    with locks.removal_lock(thing) as found:
        return found


def test_who_makes_and_who_uses_is_seen(thing):
    assert reason(thing) == ""
    with alone(thing):
        assert reason(thing) == "another process makes it"
        use = locks.usage_mark(thing)
        use.__enter__()
    assert reason(thing) == "another process uses it"
    use.__exit__(None, None, None)
    assert reason(thing) == ""


def test_a_thing_whose_name_begins_alike_is_another(thing):
    longer = thing.with_name(f"{thing.name}b")
    with alone(longer), locks.usage_mark(longer):
        assert reason(thing) == ""


@pytest.mark.slow
def test_marks_hold_while_others_clear_files_away(thing, tmp_path):
    done = threading.Event()

    def clear():
        while not done.is_set():
            locks.remove_stale(tmp_path)

    other = threading.Thread(target=clear)
    other.start()
    try:
        for _ in range(200):
            with alone(thing):
                use = locks.usage_mark(thing)
                use.__enter__()
            with alone(thing):
                marks = list(tmp_path.glob("locks/*.used"))
            use.__exit__(None, None, None)
            assert len(marks) == 1
    finally:
        done.set()
        other.join()


def test_files_of_locks_do_not_gather(thing, tmp_path):
    dead = tmp_path / locks.FOLDER / f"exports-{thing.name}.0123456789abcdef.used"
    dead.parent.mkdir()
    dead.touch()
    with alone(thing), locks.usage_mark(thing):
        assert not dead.exists()
        locks.remove_stale(tmp_path)
        assert len(list(dead.parent.iterdir())) == 2
    locks.remove_stale(tmp_path)
    assert not list(dead.parent.iterdir())
    gone = tmp_path / "journals" / "done"
    with alone(gone):
        use = locks.usage_mark(gone)
        use.__enter__()
    use.__exit__(None, None, None)
    assert not list(dead.parent.iterdir())


def test_paths_elsewhere_are_no_things(tmp_path):
    assert (
        locks.entry_path(tmp_path, tmp_path / "corpora" / "k" / "commit" / "x.txt")
        == tmp_path / "corpora" / "k"
    )
    assert locks.entry_path(tmp_path / "cache", tmp_path / "x" / "y.txt") is None
    assert locks.entry_path(tmp_path, tmp_path / "exports") is None
