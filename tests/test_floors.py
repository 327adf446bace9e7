"""Hold the shape of the package: its rooms, the direction of imports, and what loads lazily."""

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgecap"

# Imports between packages go to a lower floor only. Floor 1 is flat: the contract that all share.
FLOORS = {
    1: [
        "errors",
        "names",
        "units",
        "parsing",
        "stats",
        "provider_options",
        "spec",
        "record",
        "protocols",
    ],
    2: ["storage", "machine"],
    3: ["model", "text", "graph"],
    4: ["meters", "runtime", "analysis"],
    5: ["pipeline", "report"],
    6: ["sweep"],
    7: ["cli"],
}
# What a package may import beside floor 1; `sweep` and `cli` may import all that lies below them.
MAY_IMPORT = {
    "storage": set(),
    "machine": set(),
    "model": {"storage"},
    "text": {"storage"},
    "graph": {"machine", "storage"},
    "runtime": {"graph", "machine"},
    "meters": {"text"},
    "analysis": {"model", "text"},
    "report": {"analysis", "graph", "machine", "meters", "model", "storage"},
}
MOST_PACKAGES, MOST_LOOSE_MODULES, MOST_LINES = 14, 12, 400
FORBIDDEN = {"util", "utils", "helpers", "common", "manager", "misc"}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path):
    """Yield the edgecap modules that a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write absolute imports"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


IMPORTS = {
    name: {target for target in imported(path) if target in MODULES and target != "edgecap"}
    for name, path in MODULES.items()
}


def room(module):
    """Return the package or loose module directly in edgecap/ that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def test_every_room_has_a_floor():
    assert {room(name) for name in MODULES} == {*FLOOR_OF, "__init__", "__main__"}


def test_the_house_stays_small():
    packages = [p for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()]
    loose = list(PACKAGE.glob("*.py"))
    assert len(packages) <= MOST_PACKAGES
    assert len(loose) <= MOST_LOOSE_MODULES
    assert not FORBIDDEN & {part for name in MODULES for part in name.split(".")}


def test_no_file_is_long():
    """Except `record`, which is one contract."""
    lines = {n: len(p.read_text("utf-8").splitlines()) for n, p in MODULES.items()}
    assert {n: k for n, k in lines.items() if k > MOST_LINES and n != "edgecap.record"} == {}


def test_imports_between_packages_go_down():
    wrong = []
    for name, targets in IMPORTS.items():
        own = room(name)
        if own in ("__init__", "__main__"):
            continue
        for target in targets:
            other = room(target)
            if other == own or FLOOR_OF[own] == FLOOR_OF[other] == 1:
                continue
            allowed = MAY_IMPORT.get(own)
            if FLOOR_OF[other] >= FLOOR_OF[own] or (
                allowed is not None and FLOOR_OF[other] > 1 and other not in allowed
            ):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_modules_do_not_import_each_other_in_a_circle():
    """Whole program, so that each package is acyclic inside as well."""
    graph = {n: t for n, t in IMPORTS.items() if n != "edgecap"}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"circle of imports: {' -> '.join(error.args[1])}")


def test_a_type_has_one_name_and_a_name_one_type():
    places = defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                alias = node.targets[0].id
                if alias[0].isupper() and not alias.isupper():
                    places[alias].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_only_the_command_line_prints():
    printing = [
        name
        for name, path in MODULES.items()
        if room(name) != "cli"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert not printing


def loaded_by(code):
    script = f"import sys\n{code}\nprint(*sorted(m.split('.')[0] for m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


INVOKE = (
    "from click.testing import CliRunner; from edgecap.cli.commands import cli; "
    "CliRunner().invoke(cli, {})"
)


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
    assert not heavy & loaded_by(INVOKE.format(["--help"]))
    assert "asyncio" not in loaded_by("import edgecap.cli.commands")


def test_show_loads_no_runtime():
    record = Path(__file__).parent / "data" / "record-1.json"
    heavy = {"torch", "transformers", "onnxruntime", "onnx", "tokenizers"}
    assert not heavy & loaded_by(INVOKE.format(["show", str(record)]))


def test_public_names():
    import edgecap

    assert sorted(edgecap.__all__) == [
        "EdgecapError",
        "Profile",
        "Spec",
        "__version__",
        "compare",
        "load",
        "profile",
    ]
    rooms = {path.stem for path in PACKAGE.iterdir()}
    for name in edgecap.__all__:
        assert getattr(edgecap, name) is not None
        assert name not in rooms, (
            "a module takes the place of the name as soon as anything imports it"
        )
    assert edgecap.compare is edgecap.compare and callable(edgecap.compare)
