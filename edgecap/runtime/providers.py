"""Which execution providers really work here, what is missing to the others, and the libraries of CUDA's.

Owns onnxruntime beside `engine` and `probes`.

A runtime that was built with a provider falls back in silence where its libraries or its device are
missing, so each is tried on a graph of one node; what the runtime says meanwhile is kept.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from edgecap.provider_options import PROVIDERS, ProviderRequest, parse_provider

_MISSING = re.compile(
    r"([\w.+-]+\.(?:so|dll|dylib)[\w.]*): cannot open shared object file|depends on ([\w.+-]+\.dll)"
)
_NEEDS = re.compile(r"Require (.+?)\. Please")
_SAID = re.compile(r"(?:Error\] : \d+ : \w+ : |EP Error |\.cc:\d+ Create\] )(.+)")
_WHERE = re.compile(
    r"^\S+\.cc:\d+ .*?[)>] (?=[A-Z\[])(?:\[ERROR\] \[[\w-]+\] ?)?"
)  # file, line and C++ signature
_INNER = re.compile(
    r"Exception from \S+\n(?!Exception from)(.+)"
)  # OpenVINO: who threw it, line by line; then why
_ELSEWHERE = (
    "the runtime lists it and gives it no node: is its device written as the runtime names it?"
)


def built_providers() -> tuple[str, ...]:
    """The names, as people type them, of the providers that the installed runtime was built with."""
    import onnxruntime

    built = onnxruntime.get_available_providers()
    return tuple(name for name, provider in PROVIDERS.items() if provider in built)


def provider_problem(asked: str) -> str | None:
    """None where a one-node graph really runs on the provider, with the options that it may come with; else why, in a line."""
    import onnxruntime

    provider = parse_provider(asked)
    load_libraries(provider)
    with _said() as said:
        try:
            session = onnxruntime.InferenceSession(
                _one_node(), _alone(asked), **provider.arguments, enable_fallback=0
            )
            session.run(None, {"x": np.ones(1, np.float32)})
            took = session.get_providers()[0] == provider.runtime_name
            return None if took else _reason(said(), "the runtime put the node elsewhere")
        except (
            Exception
        ) as error:  # missing libraries and devices raise many kinds; each of them means no
            return _reason(said(), _ELSEWHERE if "default CPU EP" in str(error) else str(error))


def load_libraries(provider: ProviderRequest) -> None:
    """Loads the libraries of pip's NVIDIA packages, for a provider on CUDA: no loader looks where they lie."""
    if provider.place[0] == "cuda":
        _preload()


@functools.cache
def _preload() -> None:
    import onnxruntime

    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is None:  # a runtime before 1.21
        return
    # what is missing is told by the session that needs it, and is no error where it lies elsewhere
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(Exception),
    ):
        preload()


def _alone(asked: str) -> Any:
    """Options by which, where a device may have been asked for, a node that the provider does not take is an error.

    OpenVINO is listed first and takes no node on a device whose name it does not know.
    """
    import onnxruntime

    options, provider = onnxruntime.SessionOptions(), parse_provider(asked)
    if provider.options and provider.name != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _one_node() -> bytes:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "one", ends[:1], ends[1:]
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@contextlib.contextmanager
def _said() -> Iterator[Callable[[], str]]:
    """What native code writes to standard error and output meanwhile, as a function to be called inside or after."""
    with tempfile.TemporaryFile() as file:
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield lambda: _text_of(file)
        finally:
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _reason(said: str, otherwise: str) -> str:
    """The missing library and what is required where the runtime names them; else its own words, or `otherwise`."""
    missing = dict.fromkeys(a or b for a, b in _MISSING.findall(said))
    needs = _NEEDS.search(said)
    words = [f"{', '.join(missing)} is missing"] if missing else []
    words += [f"it needs {needs[1]}"] if needs else []
    if words:
        return "; ".join(words)
    told = _INNER.search(f"{said}\n{otherwise}") or _SAID.search(said)
    return " ".join(_WHERE.sub("", told[1] if told else otherwise).split())[:300]
