"""providers: CUDA's libraries are loaded before a session is made, once, in silence.
The runtime is a fake here.
"""

from pathlib import Path

import pytest

from edgecap.provider_options import parse_provider
from edgecap.runtime import providers
from edgecap.runtime.engine import OrtEngine
from edgecap.runtime.microbench import OrtProbes


class Stopped(Exception):
    """Raised in place of opening a session."""


@pytest.fixture
def seen(monkeypatch):
    """What the runtime was asked for, in order."""
    import onnxruntime

    asked = []

    def session(*args, **options):
        asked.append("session")
        raise Stopped

    def preload():
        asked.append("libraries")
        print("Failed to load libcudnn.so.9: the first of many lines")
        raise OSError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    providers._preload.cache_clear()
    yield asked
    providers._preload.cache_clear()


OPENED = {
    "tried": lambda name: providers.provider_problem(name),
    "engine": lambda name: OrtEngine(Path("m.onnx"), name, 1),
    "probes": lambda name: OrtProbes(name, 1).gemm("fp32", 2, 2, 2),
}


@pytest.mark.parametrize("way", OPENED)
@pytest.mark.parametrize("name", ["cuda", "tensorrt", "cuda:device_id=1"])
def test_libraries_are_loaded_before_each_session_and_once(seen, way, name, capfd):
    for _ in range(2):
        if way == "tried":
            OPENED[way](name)
        else:
            with pytest.raises(Stopped):
                OPENED[way](name)
    assert seen == ["libraries", "session", "session"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["cpu", "openvino", "dml"])
def test_other_providers_load_none(seen, name):
    providers.load_libraries(parse_provider(name))
    assert seen == []


def test_a_runtime_that_loads_none_is_no_error(seen, monkeypatch):
    import onnxruntime

    monkeypatch.delattr(onnxruntime, "preload_dlls")
    providers.load_libraries(parse_provider("cuda"))
    assert seen == []
