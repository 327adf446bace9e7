"""The direction of imports, and what must not be loaded: the shape of the program, held by a test."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "edgecap"

FLOORS = {
    **dict.fromkeys(["errors", "units", "stats"], 0),
    "provider_options": 1,
    "spec": 2,
    "record": 3,
    **dict.fromkeys(["card", "seams", "hub", "store", "findings", "advice", "pieces"], 4),
    **dict.fromkeys(
        [
            "architecture",
            "baselines",
            "blobs",
            "cautions",
            "codec",
            "corpus",
            "flops",
            "graph",
            "journal",
            "kvcache",
            "locks",
            "machine",
            "power",
            "providers",
            "score",
            "shelf",
            "source",
            "tokens",
        ],
        5,
    ),
    **dict.fromkeys(
        [
            "caching",
            "choices",
            "conditions",
            "counting",
            "engine",
            "exact",
            "export",
            "identity",
            "meters",
            "metrics",
            "optimize",
            "probes",
            "published",
            "ranking",
            "roofline",
        ],
        6,
    ),
    **dict.fromkeys(["fitting", "model", "plan", "pruning", "routing", "tokenizing", "verdicts", "worker"], 7),
    **dict.fromkeys(["gates", "job", "ledger", "predicting", "recommend"], 8),
    **dict.fromkeys(["calibration", "estimates", "leavings", "making"], 9),
    **dict.fromkeys(["marginal", "report"], 10),
    **dict.fromkeys(["doctor", "packing", "pipeline", "portable", "serving"], 11),
    "sweep": 12,
    "fleet": 13,
    **dict.fromkeys(["cli", "__init__"], 14),
    "__main__": 15,
}
FORBIDDEN = {"util", "utils", "helpers", "common", "manager"}


def rooms():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield path, "__init__" if parts == ("__init__",) else parts[0]


def imported(path):
    """edgecap's own modules that a file imports, type-checking blocks included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edgecap":
            tail = node.module.split(".")[1:]
            yield from [tail[0]] if tail else [a.name for a in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("edgecap."))


def test_every_room_has_a_floor():
    assert {room for _, room in rooms()} == set(FLOORS)
    assert not FORBIDDEN & set(FLOORS)


def test_imports_go_down():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path, room in rooms()
        for name in imported(path)
        if name in FLOORS and name != room and FLOORS[name] >= FLOORS[room]
    ]
    assert not wrong


def test_only_the_command_line_prints():
    printing = [
        str(path)
        for path, room in rooms()
        if room != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert not printing


def loaded_by(code):
    script = f"import sys\n{code}\nprint(*sorted(m.split('.')[0] for m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_import_and_help_are_light():
    heavy = {
        "torch",
        "transformers",
        "onnxruntime",
        "onnx",
        "optimum",
        "plotly",
        "tokenizers",
        "huggingface_hub",
        "numpy",
    }
    assert not heavy & loaded_by("import edgecap")
    command = (
        "from click.testing import CliRunner; from edgecap.cli.commands import cli; CliRunner().invoke(cli, ['--help'])"
    )
    assert not heavy & loaded_by(command)


def test_show_loads_no_runtime():
    record = Path(__file__).parent / "data" / "record-1.json"
    command = f"from click.testing import CliRunner; from edgecap.cli.commands import cli; CliRunner().invoke(cli, ['show', {str(record)!r}])"
    assert not {"torch", "transformers", "onnxruntime", "onnx", "tokenizers", "numpy"} & loaded_by(command)


def test_public_names():
    import edgecap

    assert sorted(edgecap.__all__) == ["EdgecapError", "Profile", "Spec", "__version__", "compare", "load", "profile"]
    rooms = {path.stem for path in PACKAGE.iterdir()}
    for name in edgecap.__all__:
        assert getattr(edgecap, name) is not None
        assert name not in rooms, "a module takes the place of the name as soon as anything imports it"
    assert edgecap.compare is edgecap.compare and callable(edgecap.compare)
