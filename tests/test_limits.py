"""How large a class, an `__init__` and a file may be; an exception stands here with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
METHODS, ATTRIBUTES, INIT_LINES, FILE_LINES = 12, 15, 40, 400

LARGE_CLASSES = {
    "ops/monitor/signals.py:ScorerSignals": "Each attribute is the list of one signal that grows per event.",
    "state/store.py:Store": "The whole of what a store is asked, each method a few lines over RocksDB.",
    "stream/api/follower.py:Follower": "One attribute more, each a part of what a partition's reader holds.",
    "stream/demo/run.py:Demo": "Its methods are the stages of one run, in the order in which they happen.",
    "stream/sources/log/event_table.py:EventTable": "Every step of sorting a log on disk is a query of its own.",
    "stream/wire/topics.py:TopicPlan": "The names of the topics are properties of it, one line each.",
}
LONG_INITS = {
    "stream/trainer/worker.py:Trainer": "It opens the trainer's parts, in the order in which it closes them again.",
}
LONG_FILES = {
    "ops/metrics.py": "The catalogue of every exported metric stands in one place.",
}


def files(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for path, text in files("stream", "model", "ops", "state"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                yield f"{path}:{node.name}", node


def methods(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public and private ones; what Python itself calls does not count."""
    found = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [item for item in found if item.name == "__init__" or not item.name.startswith("__")]


def attributes(node: ast.ClassDef) -> set[str]:
    """What is assigned to `self`."""
    return {
        target.attr
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute)
        and isinstance(target.ctx, ast.Store)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }


def test_no_class_has_more_than_a_reader_can_hold() -> None:
    large = {name for name, node in classes() if len(methods(node)) > METHODS or len(attributes(node)) > ATTRIBUTES}
    assert large == LARGE_CLASSES.keys()


def test_no_init_is_longer_than_a_screen() -> None:
    long = set()
    for name, node in classes():
        for method in methods(node):
            if method.name == "__init__" and (method.end_lineno or 0) - method.lineno >= INIT_LINES:
                long.add(name)
    assert long == LONG_INITS.keys()


def test_no_file_holds_more_than_one_idea() -> None:
    every = files("stream", "model", "ops", "state", "tests", "examples")
    assert {path for path, text in every if len(text.splitlines()) > FILE_LINES} == LONG_FILES.keys()


def test_every_exception_has_a_reason() -> None:
    reasons = [*LARGE_CLASSES.values(), *LONG_INITS.values(), *LONG_FILES.values()]
    assert all(reason.endswith(".") and len(reason.split()) > 4 for reason in reasons)
