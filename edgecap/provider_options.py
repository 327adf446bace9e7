"""Execution providers as people ask for them: names with options, read and written; what brings a missing one. Pure.

    cuda:device_id=0,cudnn_conv_algo_search=HEURISTIC      one provider and its options
    cpu,cuda:device_id=1,openvino:device_type=GPU          several

A comma both parts options and providers. The rule: a part begins a provider unless it is an option, which is
`key=value` whose key holds no colon, behind a provider that has a colon. So `a=b` never begins a provider and
`cpu` never is an option. A value may hold colons and `=`, but no comma: options that are lists with commas
(TensorRT's `trt_profile_min_shapes`) cannot be given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from edgecap.errors import UsageError, did_you_mean

# The name people type -> ONNX Runtime's execution provider. Data only: nothing branches on a name.
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

# Where a provider's values live, as the runtime names devices; "cpu" where not listed.
DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}

# Providers that take the runtime's fused operators (GroupQueryAttention and others) on their device. The others join
# plain operators by themselves, and would leave fused ones to the CPU.
FUSED_PROVIDERS = ("cpu", "cuda", "dml", "webgpu")

# Providers with threads of their own, which do not heed the session's number -> the option that sets it.
THREAD_OPTIONS = {"openvino": "num_of_threads"}

INDEX_OPTIONS = ("device_id", "device_index")  # options that must be whole numbers from 0
_KEY = re.compile(r"[A-Za-z_][\w.]*")


class ProviderRequest(NamedTuple):
    """A provider with its options, as the runtime takes them; `str` writes what `parse_provider` reads."""

    name: str
    options: dict[str, str]

    @property
    def runtime_name(self) -> str:
        """What ONNX Runtime calls it."""
        return PROVIDERS[self.name]

    @property
    def arguments(self) -> dict[str, list[Any]]:
        """What a session must be given to run on it alone."""
        return {"providers": [self.runtime_name], "provider_options": [self.options]}

    def with_threads(self, threads: int) -> ProviderRequest:
        """The same with `threads` threads of its own, where it has such and was not given another number."""
        option = THREAD_OPTIONS.get(self.name)
        return self._replace(options={option: str(threads), **self.options}) if option else self

    @property
    def place(self) -> tuple[str, int]:
        """Where its values live, as the runtime names it: the kind of device and its number."""
        kind = DEVICES.get(self.name, "cpu")
        return kind, self.device if kind != "cpu" else 0

    @property
    def device(self) -> int:
        """The index of the device, 0 where none was asked for."""
        return next((int(self.options[key]) for key in INDEX_OPTIONS if key in self.options), 0)

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name


def parse_provider(text: str) -> ProviderRequest:
    """One provider with its options. Raises UsageError in one line."""
    found = parse_providers(text)
    if len(found) != 1:
        raise UsageError(f"{text}: one provider is needed here, {len(found)} are given")
    return found[0]


def parse_providers(text: str) -> tuple[ProviderRequest, ...]:
    """Several with their options, in the order asked, by the rule above. Raises UsageError in one line."""
    found: list[ProviderRequest] = []
    takes_options = False
    for part in (p.strip() for p in text.split(",") if p.strip()):
        begins = not takes_options or not _is_option(part)
        if begins:
            name, takes_options, part = _begun(part, text)
            found.append(ProviderRequest(name, {}))
        if part:
            _add(found[-1], part, text)
    if not found:
        raise UsageError(f"no provider given; known: {', '.join(PROVIDERS)}")
    return tuple(found)


def _is_option(part: str) -> bool:
    key, equals, _ = part.partition("=")
    return bool(equals) and ":" not in key


def _begun(part: str, text: str) -> tuple[str, bool, str]:
    """Name, whether a colon follows it, and the first option or nothing."""
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


def _add(provider: ProviderRequest, part: str, text: str) -> None:
    key, equals, value = (p.strip() for p in part.partition("="))
    if not equals or not value or not _KEY.fullmatch(key):
        raise UsageError(
            f"{text}: '{part}' is no option; write {provider.name}:KEY=VALUE,KEY=VALUE"
        )
    if key in provider.options:
        raise UsageError(f"{text}: {key} is given twice for {provider.name}")
    if key in INDEX_OPTIONS and not re.fullmatch(r"[0-9]{1,4}", value):
        raise UsageError(
            f"{text}: {key}={value} must be a whole number from 0, as the system counts devices"
        )
    provider.options[key] = value


def base_name(text: str) -> str:
    """`"cuda:device_id=1"` -> `"cuda"`."""
    return text.partition(":")[0]


def format_providers(providers: Iterable[ProviderRequest]) -> str:
    """What `parse_providers` reads."""
    return ",".join(str(p) for p in providers)


# --- what brings a missing provider -----------------------------------------------------------

_OWN = "in an environment of its own: packages of the runtime overwrite each other"
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

# A word of the runtime's reason -> what brings it; the first that is found. For providers on CUDA.
_CUDA = 'pip install "onnxruntime-gpu[cuda,cudnn]"; the libraries are loaded by onnxruntime.preload_dlls()'
LIBRARIES = {
    "libcuda.so": "install the NVIDIA driver: no package from PyPI brings libcuda",
    "nvcuda.dll": "install the NVIDIA driver: no package from PyPI brings nvcuda",
    "nvinfer": "pip install tensorrt, of the major version that the runtime names",
    "nvonnxparser": "pip install tensorrt, of the major version that the runtime names",
    **dict.fromkeys(("cublas", "cudnn", "cudart", "cufft", "curand", "nvrtc", "nvjitlink"), _CUDA),
    "libopenvino": PACKAGES["openvino"],
    "no CUDA-capable device": "no NVIDIA GPU is visible here: look at nvidia-smi and CUDA_VISIBLE_DEVICES",
    "invalid device ordinal": "there is no device of this number: nvidia-smi -L lists them, counted from 0",
    "driver version is insufficient": "install a newer NVIDIA driver, or an onnxruntime-gpu for an older CUDA",
}


def install_hint(name: str, reason: str, there: bool = False) -> str:
    """What to do about a provider that is not there, by the runtime's `reason`, which is empty where it was not built in.

    Where the provider is `there` and only what was asked of it is not, no package brings it.
    """
    told = next((way for word, way in LIBRARIES.items() if word.lower() in reason.lower()), None)
    return told or ("" if there else PACKAGES[name])
