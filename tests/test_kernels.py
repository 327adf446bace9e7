"""graph.kernels: what a provider has no kernel for, by ONNX Runtime's own list."""

import re
import sys

import pytest
from commands import edgecap
from conftest import REFERENCE, ROOT, VARIANTS
from exports import exported
from onnx import TensorProto, helper
from test_graph_costs import saved

from edgecap.graph.kernels import MissingKernel, missing_kernels

sys.path.append(str(ROOT / "scripts"))

import kernels  # noqa: E402

FLOAT, INT64, UINT64 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT64
INT8_OPERATORS = {"DynamicQuantizeLinear", "MatMulInteger"}


def compute(path, provider):
    """Types by operator, of compute nodes without a kernel."""
    return {m.op: m.types[0] for m in missing_kernels(path, provider) if not m.of_shapes}


@pytest.fixture(scope="module")
def int8d(cache):
    return exported(REFERENCE, cache, ("int8d",)) / "int8d" / "model.onnx"


def test_cuda_has_kernels_for_a_fused_fp16_graph_but_no_fp32_attention(reference):
    assert compute(reference / "fp16" / "model.onnx", "cuda") == {}
    for precision in ("fp32", "int8", "int4"):
        path = reference / precision / "model.onnx"
        assert compute(path, "cuda") == {"GroupQueryAttention": "float"}


def test_a_plain_fp32_graph_runs_on_cuda(cache):
    assert compute(exported(REFERENCE, cache, fused=False) / "fp32" / "model.onnx", "cuda") == {}


def test_cuda_has_no_kernels_for_dynamic_int8(int8d):
    missing = {m.op: m for m in missing_kernels(int8d, "cuda")}
    assert missing.keys() == {*INT8_OPERATORS, "GroupQueryAttention"}
    assert missing["MatMulInteger"].types[:2] == ("uint8", "int8")
    assert len(missing["MatMulInteger"].nodes) == len(missing["DynamicQuantizeLinear"].nodes) == 17


def test_no_false_alarm_where_all_nodes_run(reference, int8d):
    """The tests run these graphs on the CPU; fp16 it computes in fp32 behind casts."""
    for path in (int8d, *(reference / p / "model.onnx" for p in VARIANTS if p != "fp16")):
        assert missing_kernels(path, "cpu") == []


def test_a_provider_without_a_list_lacks_nothing(int8d):
    assert missing_kernels(int8d, "openvino") == []


def test_nodes_that_compute_with_shapes_are_told_apart(tmp_path):
    def shifted(name, source):
        to, out = {"to": UINT64}, [f"{name}.wide"]
        return (
            helper.make_node("Cast", [source], out, **to),
            helper.make_node("BitShift", [*out, "one"], [name], name=name, direction="LEFT"),
        )

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        *shifted("of shapes", "shape"),
        *shifted("of data", "y"),
    ]
    one = helper.make_tensor("one", UINT64, [1], [1])
    ends = [("of shapes", UINT64, [2]), ("of data", UINT64, [3])]
    path = saved(tmp_path, nodes, [("x", FLOAT, [2, 3]), ("y", INT64, [3])], ends, [one])
    types = ("uint64", "uint64")
    assert missing_kernels(path, "cuda") == [
        MissingKernel("BitShift", "", types, ("of data",), False),
        MissingKernel("BitShift", "", types, ("of shapes",), True),
    ]


@pytest.mark.parametrize(("opset", "missing"), [(21, {}), (22, {"Elu": "float"})])
def test_an_open_range_is_for_its_first_version_only(tmp_path, opset, missing):
    """The runtime does not guess that a kernel fits a later definition: Elu changed in 22."""
    nodes = [helper.make_node("Elu", ["x"], ["y"])]
    path = saved(tmp_path, nodes, [("x", FLOAT, [2])], [("y", FLOAT, [2])], opset=opset)
    assert compute(path, "cuda") == missing


def test_export_names_what_will_run_on_the_cpu(cache, tmp_path):
    words = ("export", "--model", exported(REFERENCE, cache), "--precision", "fp32,fp16")
    done = edgecap(*words, "--for", "cuda:device_id=1", "-o", tmp_path / "out", "--cache", cache)
    assert done.returncode == 0, done.stderr
    assert re.findall("^(.*) has no kernel for (.*);", done.stderr, re.M) == [
        ("fp32: cuda", "GroupQueryAttention of float/int32 (4)")
    ]


# --- scripts/kernels.py -----------------------------------------------------------------------

DOC = """
## Operators implemented by CPUExecutionProvider
| Op Name | Parameters | OpSet Version | Types Supported |
|---------|------------|---------------|-----------------|
|**Operator Domain:** *ai.onnx*||||
|Neg|*in* X:**T**<br> *out* Y:**T**|13+|**T** = tensor(double)|

## Operators implemented by DmlExecutionProvider
|**Operator Domain:** *ai.onnx*||||
|Add|*in* A:**T**|14+|**T** = tensor(int8), tensor(float)<br/> **S** = seq(tensor(x))|
|||13|**T** = tensor(float)|
|||[7, 12]|**T** = tensor(float)|
|**Operator Domain:** *com.microsoft*||||
|Bias|*in* X:**T**<br><br>or<br><br>*in* X:**U**|1+|**T** = tensor(float)<br/> **U** = tensor(int8)|
|**Operator Domain:** *com.microsoft.dml*||||
|DmlFused|*in* X:**T**|1+|**T** = tensor(float)|
"""


def test_the_list_is_read_from_the_document():
    assert kernels.lines(kernels.from_doc(DOC, "DmlExecutionProvider")) == {
        "": {"Add": ["7-12 T=float", "13-13 T=float", "14+ T=float|int8"]},
        "ai.onnx.ml": {},
        "com.microsoft": {"Bias": ["1+ T=float U=int8"]},
    }


def test_only_kernels_that_differ_in_one_constraint_share_a_line():
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "z")]
    types = [{"T": frozenset({t}), "U": frozenset({u})} for t, u in rows]
    listed = kernels.lines([("", "Op", 1, kernels.LAST, t) for t in types])
    assert listed[""] == {"Op": ["1+ T=a|b U=x|y", "1+ T=c U=z"]}
