"""Test which execution providers work here, say why others do not, and load CUDA's libraries.

A runtime that was built with a provider falls back silently where its libraries or its device are
missing. So each provider runs a graph of one node, and the runtime's messages are captured.
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

from edgecap.machine.nvidia import missing_device
from edgecap.names import one_line
from edgecap.provider_options import PROVIDERS, ProviderRequest, parse_provider

_MISSING = re.compile(
    r"([\w.+-]+\.(?:so|dll|dylib)[\w.]*): cannot open shared object file|depends on ([\w.+-]+\.dll)"
)
_NEEDS = re.compile(r"Require (.+?)\. Please")
_MESSAGE = re.compile(r"(?:Error\] : \d+ : \w+ : |EP Error |\.cc:\d+ Create\] )(.+)")
_WHERE = re.compile(
    r"^\S+\.cc:\d+ .*?[)>] (?=[A-Z\[])(?:\[ERROR\] \[[\w-]+\] ?)?"
)  # file, line and C++ signature
_INNER = re.compile(
    r"Exception from \S+\n(?!Exception from)(.+)"
)  # OpenVINO: the places that threw it, line by line; then the reason
_ELSEWHERE = (
    "the runtime lists it but gives it no node: check that its device has the runtime's name"
)


def built_providers() -> tuple[str, ...]:
    """Return edgecap's names of the providers that the installed runtime was built with."""
    import onnxruntime

    built = onnxruntime.get_available_providers()
    return tuple(name for name, provider in PROVIDERS.items() if provider in built)


def provider_problem(provider_text: str) -> str | None:
    """Return None if a one-node graph runs on the provider; else the reason, in one line.

    `provider_text` may contain options, as `parse_provider` reads them.
    """
    import onnxruntime

    provider = parse_provider(provider_text)
    if provider.place[0] == "cuda" and (reason := missing_device(provider.device)):
        return reason
    load_libraries(provider)
    with _native_output() as output:
        try:
            session = onnxruntime.InferenceSession(
                _one_node(), _no_fallback_options(provider), **provider.arguments, enable_fallback=0
            )
            session.run(None, {"x": np.ones(1, np.float32)})
            works = session.get_providers()[0] == provider.runtime_name
            return None if works else _reason(output(), "the runtime put the node elsewhere")
        except Exception as error:  # missing libraries and devices raise many types
            return _reason(output(), _ELSEWHERE if "default CPU EP" in str(error) else str(error))


def load_libraries(provider: ProviderRequest) -> None:
    """Load the libraries of pip's NVIDIA packages, if the provider runs on CUDA.

    No system loader searches their folders.
    """
    if provider.place[0] == "cuda":
        _preload()


@functools.cache
def _preload() -> None:
    import onnxruntime

    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is None:  # a runtime before 1.21
        return
    # A session that needs a missing library reports it; here it may be installed elsewhere.
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(Exception),
    ):
        preload()


def _no_fallback_options(provider: ProviderRequest) -> Any:
    """Return session options that turn fallback to the CPU into an error, if a device was named.

    OpenVINO is listed first and takes no node on a device whose name it does not know.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
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
def _native_output() -> Iterator[Callable[[], str]]:
    """Capture what native code writes to standard output and error.

    Yields a function that returns the text so far; it may also be called after the block.
    """
    with tempfile.TemporaryFile() as file:
        originals = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield lambda: _text_of(file)
        finally:
            for number, old in zip((1, 2), originals, strict=True):
                os.dup2(old, number)
                os.close(old)


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _reason(output: str, otherwise: str) -> str:
    """Return the missing libraries and requirements that the runtime names, else its message.

    Without either, return `otherwise`. The result is one line.
    """
    missing = dict.fromkeys(a or b for a, b in _MISSING.findall(output))
    needs = _NEEDS.search(output)
    words = [f"{', '.join(missing)} is missing"] if missing else []
    words += [f"it needs {needs[1]}"] if needs else []
    if words:
        return "; ".join(words)
    message = _INNER.search(f"{output}\n{otherwise}") or _MESSAGE.search(output)
    return one_line(_WHERE.sub("", message[1] if message else otherwise), 300)
