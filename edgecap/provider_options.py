"""Execution providers: names with options, parsed and written; how to install a missing one. Pure.

    cuda:device_id=0,cudnn_conv_algo_search=HEURISTIC      one provider and its options
    cpu,cuda:device_id=1,openvino:device_type=GPU          several

A comma separates both options and providers. A part is an option if it reads `KEY=VALUE`, its key
has no colon, and the provider before it has one; any other part begins a provider. So `a=b` never
begins a provider, and `cpu` never is an option. A value may contain colons and `=`, but no comma:
options that are lists with commas (TensorRT's `trt_profile_min_shapes`) cannot be given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from edgecap.errors import UsageError, did_you_mean

# Name that people type -> ONNX Runtime's execution provider. Data only: no code branches on a name.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}

# Provider -> device of its tensors, as the runtime names devices; "cpu" if not listed.
DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}

# Providers that run the runtime's fused operators (GroupQueryAttention and others) on their device.
# The others fuse plain operators themselves, and would leave fused ones to the CPU, as CUDA does
# with attention in fp32. The first runs graphs that are compared with.
FUSED_PROVIDERS = ("cpu", "dml", "webgpu")

# Providers that compute variants in fp16: activations, cache, and products of weights in blocks.
HALF_PROVIDERS = ("cuda", "tensorrt", "dml", "webgpu")

# Of these, those that have kernels for bfloat16.
BF16_PROVIDERS = ("cuda",)

# Provider that records the launches of a run and replays them -> option that turns it on.
RECORDING = {"cuda": "enable_cuda_graph"}

# Provider -> one on the same device that runs the nodes it does not take.
BEHIND = {"tensorrt": "cuda"}

# Operators of weights in blocks: the runtime's own, or standard ones for the others.
CONTRIB, STANDARD = "contrib", "standard"

# Provider with its own thread pool, which ignores the session's threads -> option that sets it.
THREAD_OPTIONS = {"openvino": "num_of_threads"}

INDEX_OPTIONS = ("device_id", "device_index")  # options that must be whole numbers from 0
_KEY = re.compile(r"[A-Za-z_][\w.]*")


class ProviderRequest(NamedTuple):
    """Provider with its options, as the runtime takes them; `str` writes what is parsed."""

    name: str
    options: dict[str, str]

    @property
    def runtime_name(self) -> str:
        """Return the name of the execution provider in ONNX Runtime."""
        return PROVIDERS[self.name]

    @property
    def arguments(self) -> dict[str, list[Any]]:
        """Return the arguments of a session that runs on this provider's device alone."""
        names, options = [self.runtime_name], [self.options]
        if self.name in BEHIND:
            names.append(PROVIDERS[BEHIND[self.name]])
            options.append({"device_id": str(self.device)})
        return {"providers": names, "provider_options": options}

    def with_threads(self, threads: int) -> ProviderRequest:
        """Set the provider's own threads to `threads`, unless an option already sets them."""
        option = THREAD_OPTIONS.get(self.name)
        return self._replace(options={option: str(threads), **self.options}) if option else self

    @property
    def place(self) -> tuple[str, int]:
        """Return kind and index of the device of its tensors, as the runtime names it."""
        kind = DEVICES.get(self.name, "cpu")
        return kind, self.device if kind != "cpu" else 0

    @property
    def device(self) -> int:
        """Return the index of the device, 0 by default."""
        return next((int(self.options[key]) for key in INDEX_OPTIONS if key in self.options), 0)

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name


def parse_provider(text: str) -> ProviderRequest:
    """Parse one provider with its options. Raise UsageError with one line."""
    providers = parse_providers(text)
    if len(providers) != 1:
        raise UsageError(f"{text}: one provider is needed here, {len(providers)} are given")
    return providers[0]


def parse_providers(text: str) -> tuple[ProviderRequest, ...]:
    """Parse providers with their options, in the order given. Raise UsageError with one line."""
    providers: list[ProviderRequest] = []
    takes_options = False
    for part in (p.strip() for p in text.split(",") if p.strip()):
        begins = not takes_options or not _is_option(part)
        if begins:
            name, takes_options, part = _parse_start(part, text)
            providers.append(ProviderRequest(name, {}))
        if part:
            _add_option(providers[-1], part, text)
    if not providers:
        raise UsageError(f"no provider given; known: {', '.join(PROVIDERS)}")
    return tuple(providers)


def _is_option(part: str) -> bool:
    key, equals, _ = part.partition("=")
    return bool(equals) and ":" not in key


def _parse_start(part: str, text: str) -> tuple[str, bool, str]:
    """Return a name, True if a colon follows it, and its first option or ""."""
    name, colon, option = (p.strip() for p in part.partition(":"))
    if "=" in name:
        raise UsageError(f"{text}: '{part}' is an option without a provider; write NAME:KEY=VALUE")
    name = name.lower()
    if name not in PROVIDERS:
        known = f"(known: {', '.join(PROVIDERS)})"
        raise UsageError(f"unknown provider '{name}' {known}{did_you_mean(name, PROVIDERS)}")
    if colon and not option:
        raise UsageError(f"{text}: nothing follows '{name}:'; write {name} or {name}:KEY=VALUE")
    return name, bool(colon), option


def _add_option(provider: ProviderRequest, part: str, text: str) -> None:
    key, equals, value = (p.strip() for p in part.partition("="))
    if not equals or not value or not _KEY.fullmatch(key):
        raise UsageError(
            f"{text}: '{part}' is no option; write {provider.name}:KEY=VALUE,KEY=VALUE"
        )
    if key in provider.options:
        raise UsageError(f"{text}: {key} is given twice for {provider.name}")
    if key in INDEX_OPTIONS and not re.fullmatch(r"[0-9]{1,4}", value):
        raise UsageError(
            f"{text}: {key}={value} must be a whole number from 0: the index of the device"
        )
    provider.options[key] = value


def base_name(text: str) -> str:
    """Return the name without options: `"cuda:device_id=1"` -> `"cuda"`."""
    return text.partition(":")[0]


def any_on_cuda(texts: Iterable[str]) -> bool:
    """Return True if one of the providers computes on an NVIDIA board by its number in CUDA."""
    return any(parse_provider(text).place[0] == "cuda" for text in texts)


def block_operators(text: str) -> str:
    """Return the operators that a provider gets weights in blocks in."""
    return CONTRIB if base_name(text) in (*FUSED_PROVIDERS, *HALF_PROVIDERS) else STANDARD


def format_providers(providers: Iterable[ProviderRequest]) -> str:
    """Write providers as `parse_providers` reads them."""
    return ",".join(str(p) for p in providers)


# --- installation -----------------------------------------------------------------------------

_OWN = "in a separate environment: packages of the runtime overwrite each other"
PACKAGES = {
    "cpu": "pip install onnxruntime",
    "cuda": "pip install onnxruntime-gpu (Linux and Windows on x86-64, with an NVIDIA driver)",
    "tensorrt": "pip install onnxruntime-gpu tensorrt",
    "openvino": f"pip install onnxruntime-openvino, {_OWN}",
    "coreml": "pip install onnxruntime on macOS, whose wheel has it",
    "dml": f"pip install onnxruntime-directml on Windows, {_OWN}",
    "qnn": f"pip install onnxruntime-qnn on a Qualcomm machine, {_OWN}",
    "migraphx": f"pip install onnxruntime-migraphx with ROCm on Linux, {_OWN}",
    "xnnpack": "no wheel on PyPI for computers has it: build ONNX Runtime with --use_xnnpack",
    "webgpu": f"pip install onnxruntime-webgpu, {_OWN}",
}

# Text in the runtime's reason -> remedy; the first match counts. For providers on CUDA.
_CUDA = (
    'pip install "onnxruntime-gpu[cuda,cudnn]"; '
    "the libraries are loaded by onnxruntime.preload_dlls()"
)
LIBRARIES = {
    "libcuda.so": "install the NVIDIA driver: no package from PyPI brings libcuda",
    "nvcuda.dll": "install the NVIDIA driver: no package from PyPI brings nvcuda",
    "nvinfer": "pip install tensorrt, of the major version that the runtime names",
    "nvonnxparser": "pip install tensorrt, of the major version that the runtime names",
    **dict.fromkeys(("cublas", "cudnn", "cudart", "cufft", "curand", "nvrtc", "nvjitlink"), _CUDA),
    "libopenvino": PACKAGES["openvino"],
    "no CUDA-capable device": (
        "no NVIDIA GPU is visible here: check nvidia-smi and CUDA_VISIBLE_DEVICES"
    ),
    "invalid device ordinal": (
        "there is no device with this index: nvidia-smi -L lists them, counted from 0"
    ),
    "driver version is insufficient": (
        "install a newer NVIDIA driver, or an onnxruntime-gpu for an older CUDA"
    ),
}


def install_hint(name: str, reason: str, there: bool = False) -> str:
    """Return how to install a missing provider, from the runtime's `reason` ("": not built in).

    If the provider is `there` and only its options fail, return "" unless a library is missing.
    """
    hints = (hint for text, hint in LIBRARIES.items() if text.lower() in reason.lower())
    return next(hints, "" if there else PACKAGES[name])
