"""Download from the Hugging Face Hub: files of models and datasets. Owns huggingface_hub."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from edgecap.errors import DiskFull, UsageError, did_you_mean

_SNAPSHOT = re.compile(r"/models--(?P<name>[^/]+)/snapshots/(?P<revision>[^/]+)(/|\Z)")


def fetch_model(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Download a model's files and return their folder. Raises UsageError if that fails."""
    from huggingface_hub import snapshot_download

    with _errors("model", name, revision):
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))


def repository_of(folder: Path) -> tuple[str, str] | None:
    """Return the name and the revision of a model whose folder lies in the Hub's cache, else None.

    The cache keeps it in `models--ORG--NAME/snapshots/REVISION`, to which a link may lead.
    """
    for path in (folder.resolve(), Path(os.path.abspath(folder))):
        found = _SNAPSHOT.search(path.as_posix())
        if found:
            return "/".join(found["name"].split("--")), found["revision"]
    return None


def fetch_file(dataset: str, file: str, revision: str | None) -> Path:
    """Download a file of a dataset, or the rest of it, and return its path.

    Raises UsageError if that fails.
    """
    from huggingface_hub import hf_hub_download

    with _errors("dataset", dataset, revision, file):
        return Path(hf_hub_download(dataset, file, repo_type="dataset", revision=revision))


def commit_of(dataset: str, revision: str | None) -> str | None:
    """Return the commit of a dataset's branch; None if the Hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        commit: str | None = HfApi().dataset_info(dataset, revision=revision).sha
    except Exception:  # the download of the file reports the reason
        return None
    return commit


def read_lines(dataset: str, file: str, revision: str | None, count: int) -> bytes:
    """Return the first `count` lines of a file that are not blank, without downloading the rest."""
    from huggingface_hub import HfFileSystem

    at = f"datasets/{dataset}{f'@{revision}' if revision else ''}/{file}"
    with (
        _errors("dataset", dataset, revision, file),
        HfFileSystem().open(at, "rb", block_size=1 << 20) as lines,
    ):
        return b"".join(itertools.islice((line for line in lines if line.strip()), count))


@contextlib.contextmanager
def _errors(kind: str, name: str, revision: str | None, file: str = "") -> Iterator[None]:
    import logging

    from huggingface_hub import constants, errors

    if constants.HF_HUB_CACHE.startswith("~"):
        raise UsageError(
            "this user has no home folder (no HOME and no passwd entry), so there is no place for "
            f"the {kind} '{name}': set HF_HOME to a folder that can be written"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    at = f"'{name}'" + (f" at revision '{revision}'" if revision else "")
    try:
        yield
    except errors.GatedRepoError:
        raise UsageError(
            f"{kind} {at} is gated: accept its terms on the Hub and log in with `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"no {kind} {at} on the Hub (or it is private and you are not logged in)"
        ) from None
    except errors.RevisionNotFoundError:
        raise UsageError(
            f"no {kind} {at} on the Hub: the {kind} is there, the revision is not"
        ) from None
    except (errors.EntryNotFoundError, FileNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(kind, at, error) from None
        raise UsageError(f"no file '{file}' in {kind} {at}{_files_there(name, file)}") from None
    except Exception as error:  # offline raises many types: of requests, httpx, OSError
        if isinstance(error, OSError) and error.errno == 28:
            raise DiskFull(f"no room left on the disk to download {at}") from None
        raise _unreachable(kind, at, error) from None


def _unreachable(kind: str, at: str, error: Exception) -> UsageError:
    reason = type(error).__name__
    instead = "a folder or a reference model" if kind == "model" else "a file on this disk"
    return UsageError(
        f"cannot fetch {kind} {at}: the Hub cannot be reached "
        f"and it is not in the local cache ({reason}); "
        f"give {instead} instead"
    )


def _files_there(dataset: str, file: str) -> str:
    from huggingface_hub import HfApi

    try:
        names = [
            n
            for n in HfApi().list_repo_files(dataset, repo_type="dataset")
            if n.endswith((".jsonl", ".txt"))
        ]
    except Exception:  # a hint is not worth a second error
        return ""
    same = [n for n in names if n.rpartition("/")[2] == file.rpartition("/")[2]]
    if same:
        return f"; did you mean '{same[0]}'?"
    return (
        did_you_mean(file, names)
        or f"; it holds {', '.join(names[:8]) or 'no .jsonl or .txt file'}"
    )
