"""edgecap: what a language model really delivers on the hardware in front of you.

record = edgecap.profile(edgecap.Spec(model="edgecap-ref-xs", precisions=("fp32", "int8")))
record = edgecap.load("profiles/edgecap-ref-xs--laptop--20261123T204500Z.json")
for comparison in edgecap.compare([record], baseline="precision=fp32"):
    print(comparison.candidate, comparison.differences)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["EdgecapError", "Profile", "Spec", "__version__", "compare", "load", "profile"]

if TYPE_CHECKING:
    from edgecap.analysis.compare import compare
    from edgecap.errors import EdgecapError
    from edgecap.pipeline.profile import profile
    from edgecap.record import Profile
    from edgecap.spec import Spec
    from edgecap.storage.records import load

_MODULES = {
    "EdgecapError": "errors",
    "Profile": "record",
    "Spec": "spec",
    "compare": "analysis.compare",
    "load": "storage.records",
    "profile": "pipeline.profile",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import edgecap` stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module 'edgecap' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"edgecap.{_MODULES[name]}"), name)
