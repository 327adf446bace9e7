"""advice and provider_options: what will not pay, and how providers are asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap import spec
from edgecap.analysis.advisor import (
    BF16,
    BF16_RUNTIME,
    FP16,
    HQQ,
    INT8,
    INT8_SATURATES,
    advise,
)
from edgecap.errors import UsageError
from edgecap.provider_options import (
    PACKAGES,
    PROVIDERS,
    ProviderRequest,
    format_providers,
    install_hint,
    parse_provider,
    parse_providers,
)
from edgecap.record import Absent, Machine


def machine(*flags):
    nothing = Absent(reason="a fake")
    return Machine(
        name="m", system="s", cpu="c", architecture="x86_64", flags=flags, physical_cores=2,
        logical_cores=2, memory_bytes=1, governor=nothing, turbo=nothing, power_source=nothing,
        temperature_c=nothing, load_average=nothing, versions={}, providers=("cpu",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "flags", "told"),
    [
        ("fp32", (), None),
        ("fp16", ("avx512_vnni",), FP16),
        ("fp16", ("asimdhp",), None),
        ("bf16", (), BF16),
        ("bf16", ("avx512_bf16",), BF16_RUNTIME),
        ("bf16", ("bf16",), BF16_RUNTIME),
        ("int8", ("avx2",), INT8),
        ("int8", ("avx512_vnni",), None),
        ("int8s", ("avx2",), INT8_SATURATES),
        ("int8d", ("avx2",), INT8_SATURATES),
        ("int8d", ("avx512_vnni",), None),
        ("int8w", ("asimddp",), None),
        ("int4", ("avx2",), INT8),
        ("int4b128", ("avx_vnni",), None),
        ("int4hqq", ("avx512_vnni",), HQQ),
    ],
)
def test_what_will_not_pay_on_a_cpu(precision, flags, told):
    assert advise(machine(*flags), precision, "cpu", None) == told
    assert advise(machine(*flags), precision, "cpu", 135_000_000) == told
    assert advise(machine(*flags), precision, "cuda", None) is None
    assert advise(machine(*flags), precision, "cpu", 260_000) is None


# --- providers --------------------------------------------------------------------------------


def test_the_names_are_those_of_the_spec():
    assert PROVIDERS == spec.PROVIDERS
    assert PACKAGES.keys() == PROVIDERS.keys()


def test_one_provider_with_options():
    found = parse_provider("CUDA: device_id=1, cudnn_conv_algo_search=HEURISTIC")
    assert found == ProviderRequest(
        "cuda", {"device_id": "1", "cudnn_conv_algo_search": "HEURISTIC"}
    )
    assert (found.device, parse_provider("cpu").device) == (1, 0)
    assert str(found) == "cuda:device_id=1,cudnn_conv_algo_search=HEURISTIC"


def test_a_comma_before_a_name_begins_a_provider():
    found = parse_providers(
        "cpu,cuda:device_id=1,gpu_mem_limit=5,openvino:device_type=HETERO:GPU,cpu"
    )
    assert [p.name for p in found] == ["cpu", "cuda", "openvino", "cpu"]
    assert found[1].options == {"device_id": "1", "gpu_mem_limit": "5"}
    assert found[2].options == {"device_type": "HETERO:GPU"}


keys = st.from_regex(r"[a-z_][a-z0-9_.]{0,8}", fullmatch=True).filter(
    lambda k: k not in ("device_id", "device_index")
)
values = st.text(
    st.characters(codec="utf-8", exclude_characters=",", exclude_categories=["Z", "C"]), min_size=1
)
options = st.dictionaries(keys, values, max_size=3) | st.integers(0, 99).map(
    lambda n: {"device_id": str(n)}
)
asked = st.builds(ProviderRequest, st.sampled_from(list(PROVIDERS)), options)


@pytest.mark.slow
@given(st.lists(asked, min_size=1, max_size=4))
def test_what_is_written_is_read_again(providers):
    assert parse_providers(format_providers(providers)) == tuple(providers)
    assert [parse_provider(str(p)) for p in providers] == providers


@given(st.text("abcpu:=,_ 01é\n", max_size=20))
def test_any_text_is_read_or_refused_in_words(text):
    try:
        assert parse_providers(format_providers(parse_providers(text))) == parse_providers(text)
    except UsageError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cud", "unknown provider 'cud' .*did you mean 'cuda'"),
        ("", "no provider given"),
        ("cuda:", "nothing follows 'cuda:'"),
        ("cuda:device_id", "'device_id' is no option"),
        ("cuda:device_id=", "'device_id=' is no option"),
        ("cuda:=1", "'=1' is no option"),
        ("device_id=1", "an option without a provider"),
        ("cpu,arena=1", "'arena=1' is an option without a provider"),
        ("cuda:device_id=-1", "device_id=-1 must be a whole number from 0"),
        ("cuda:device_id=1.5", "must be a whole number"),
        ("cuda:device_id=٣", "must be a whole number"),
        ("cuda:a=1,a=2", "a is given twice"),
        ("cuda:a=1,cudaa", "unknown provider 'cudaa'"),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(UsageError, match=words) as error:
        parse_providers(text)
    assert "\n" not in str(error.value)


def test_one_is_not_two():
    with pytest.raises(UsageError, match="one provider is needed here, 2 are given"):
        parse_provider("cpu,cuda")


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("cuda", "libcublasLt.so.13 is missing", "onnxruntime-gpu\\[cuda,cudnn\\]"),
        ("cuda", "libcudnn.so.9 is missing; it needs cuDNN 9.*", "preload_dlls"),
        ("cuda", "libcuda.so.1 is missing", "NVIDIA driver"),
        ("cuda", "CUDA failure 100: no CUDA-capable device is detected", "nvidia-smi"),
        ("cuda", "CUDA failure 101: invalid device ordinal", "no device with this index"),
        ("tensorrt", "libnvinfer.so.10 is missing", "pip install tensorrt"),
        ("openvino", "", "onnxruntime-openvino, in a separate environment"),
        ("dml", "", "onnxruntime-directml"),
        ("qnn", "", "onnxruntime-qnn"),
        ("coreml", "", "macOS"),
        ("webgpu", "", "onnxruntime-webgpu"),
        ("migraphx", "", "ROCm"),
        ("xnnpack", "", "build ONNX Runtime"),
    ],
)
def test_what_brings_what_is_missing(name, reason, words):
    import re

    assert re.search(words, install_hint(name, reason))
