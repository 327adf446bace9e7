"""Check that transformers knows a model, before an exporter starts."""

from __future__ import annotations

from pathlib import Path

from edgecap.errors import UsageError


def check_known(folder: Path, trust_remote_code: bool) -> None:
    """Raise UsageError if transformers cannot read the folder's config."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, OSError) as error:
        reason = str(error).split("\n")[0][:200]
        raise UsageError(f"transformers does not know the model in {folder}: {reason}") from error
