"""The direction of imports: `state`, `model` and `ops` are leaves; only `stream` knows them all."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"state", "model", "ops", "stream"}


def imported_folders(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found & FOLDERS


@pytest.mark.parametrize("leaf", ["state", "model", "ops"])
def test_a_leaf_imports_no_other_folder(leaf: str) -> None:
    for path in (ROOT / leaf).rglob("*.py"):
        assert imported_folders(path) <= {leaf}, path


def test_nothing_evaluates_or_unpickles() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not names & {"eval", "exec", "pickle"}, path


def room(path: Path) -> str:
    return path.relative_to(ROOT / "stream").parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Of `stream`, wherever in the file they are imported."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {module.split(".")[1] for module in modules if module.startswith("stream.")} - {room(path)}


def picture() -> list[list[str]]:
    """The lines of rooms in docs/architecture.md, from the top down."""
    lines = re.findall(r"^  (stream/.*)$", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    words = [re.split(r"\s{2,}", line.removeprefix("stream/")) for line in lines]
    return [[word.removesuffix(".py") for word in line if re.fullmatch(r"[a-z]+(\.py)?", word)] for line in words]


def test_imports_go_down_in_the_picture_and_rooms_of_one_line_are_apart() -> None:
    drawn = {name: floor for floor, names in enumerate(picture()) for name in names}
    found = [
        path for path in (ROOT / "stream").rglob("*.py") if path.parent != ROOT / "stream" or path.stem != "__init__"
    ]
    assert {"updater", "scorer", "trainer"} <= set(picture()[drawn["updater"]])
    assert sorted(drawn) == sorted({room(path) for path in found})
    for path in found:
        assert all(drawn[other] > drawn[room(path)] for other in imported_rooms(path)), path


# Each costs a tenth of a second of a core or more at the start of a process, and nothing that it does needs it.
HEAVY = {"torch", "scipy", "faust", "aiokafka", "aiohttp", "duckdb", "pyarrow", "fastapi", "river", "pandas", "sympy"}


@pytest.mark.parametrize(("worker", "needs"), [("updater", set()), ("scorer", {"torch", "scipy", "faust"})])
def test_a_worker_imports_nothing_heavy_that_it_does_not_need(worker: str, needs: set[str]) -> None:
    """A killed worker answers again once it has imported everything."""
    needs = needs | ({"aiokafka", "aiohttp"} if "faust" in needs else set())
    program = f"import sys, stream.cli.workers, ops.metrics, ops.server, stream.{worker}.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == needs


def test_a_model_is_loaded_without_torchs_compiler(tmp_path: Path) -> None:
    """To draw the weights of a network that has only shapes, torch imports it: half of a scorer's start."""
    program = """
import sys, torch
from model.artifact import Manifest, load_recommender, save_artifact
from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
device = torch.device("cpu")
if sys.argv[2] == "save":
    learner = Learner.fresh(preset("stream"), ItemIndex(["a", "b", "c"]), seed=0, device=device)
    save_artifact(sys.argv[1], learner, Manifest(version="v", created=1, data_until=1))
else:
    before = set(sys.modules)
    assert load_recommender(sys.argv[1], None, device).version == "v"
    print(*sorted({name for name in set(sys.modules) - before if name.startswith(("torch._", "sympy", "triton"))}))
"""
    for step in ("save", "load"):
        command = [sys.executable, "-c", program, str(tmp_path / "v"), step]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
