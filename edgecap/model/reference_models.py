"""Reference models that ship with edgecap, and lists of model names that may contain the series."""

from __future__ import annotations

import os
from pathlib import Path

SERIES = "edgecap-ref"


def reference_models(shipped: Path | None = None) -> list[Path]:
    """Return the folders of the reference models, smallest weights first.

    Search `shipped` if given, else the installed package and a source checkout.
    """
    package = Path(__file__).parents[1]
    roots = [shipped] if shipped else [package / "data" / "models", package.parent / "models"]
    folders = {
        p.parent.name: p.parent
        for root in roots
        for p in sorted(root.glob("edgecap-ref-*/config.json"))
    }
    return sorted(
        folders.values(), key=lambda p: sum(f.stat().st_size for f in p.glob("*.safetensors"))
    )


def series_members() -> tuple[str, ...]:
    """Return the names of the reference models, smallest first."""
    return tuple(path.name for path in reference_models())


def expand_name(name: str) -> tuple[str, ...]:
    """Return the members if the name is the reference series, else the name itself.

    A folder of that name takes precedence over the series.
    """
    return series_members() if name == SERIES and not os.path.isdir(name) else (name,)


def expand_names(text: str) -> tuple[str, ...]:
    """Return the models of a comma-separated list, without duplicates; a folder is one model.

    `edgecap-ref` stands for every reference model, smallest first.
    """
    if os.path.isdir(text):  # accepts text of any length, unlike Path.is_dir
        return (text,)
    names = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(dict.fromkeys(name for part in names for name in expand_name(part)))
