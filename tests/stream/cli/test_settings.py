"""Which of default, file, environment and command line holds, and what is refused with its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from stream.cli.config_fields import as_text, expected, from_text
from stream.cli.sections import SECTIONS, Section
from stream.cli.settings import Settings, SettingsError


@dataclass(frozen=True)
class Inner:
    depth: int = 3
    """How deep."""
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")


@dataclass(frozen=True)
class Common:
    window_ms: int = 1000


@dataclass(frozen=True)
class Worker:
    name: str = "w"
    folder: Path | None = None
    mode: Literal["off", "strict"] = "off"
    sizes: tuple[int, ...] = (1, 2)
    fast: bool = True
    column: str | int | None = None
    password: str = field(default="", repr=False)
    inner: Inner = field(default_factory=lambda: Inner(share=0.25))
    spare: Inner | None = None
    common: Common = field(default_factory=Common)

    def __post_init__(self) -> None:
        if self.fast and self.mode == "strict":
            raise ValueError("mode strict is not fast")


@dataclass(frozen=True)
class Kind:
    strength: float = 1.0


@dataclass(frozen=True)
class Kinds:
    kinds: Mapping[str, Kind]


HERE = __name__
TABLES = {
    "worker": Section("worker", f"{HERE}:Worker", "A worker."),
    "common": Section("common", f"{HERE}:Common", "What all share."),
    "kinds": Section("kinds", f"{HERE}:Kinds", "Kinds.", each=f"{HERE}:Kind"),
}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest runs this file under a name that nobody can import; the sections find their classes by name."""
    import sys

    monkeypatch.setitem(sys.modules, HERE, sys.modules.get(HERE) or __import__("types").ModuleType(HERE))
    for kind in (Inner, Common, Worker, Kind, Kinds):
        monkeypatch.setattr(sys.modules[HERE], kind.__name__, kind, raising=False)


def settings(
    tmp_path: Path, text: str = "", environment: Mapping[str, str] | None = None, overrides: Sequence[str] = ()
) -> Settings:
    path = tmp_path / "freshet.toml"
    path.write_text(text)
    return Settings(path, environment or {}, overrides, TABLES, {"Common": "common"})


def test_without_anything_the_classes_say_what_holds(tmp_path: Path) -> None:
    assert settings(tmp_path).read(Worker) == Worker()


def test_the_later_place_wins_and_is_told(tmp_path: Path) -> None:
    text = '[worker]\nname = "file"\nfast = false\n[worker.inner]\ndepth = 7\n'
    environment = {"FRESHET_WORKER_NAME": "environment", "FRESHET_WORKER_INNER_DEPTH": "8"}
    at = settings(tmp_path, text, environment, ["worker.name=set"]).with_options(
        {("worker", "mode"): ("strict", "--mode")}
    )
    assert at.read(Worker) == Worker("set", mode="strict", fast=False, inner=Inner(8, 0.25))
    origins = {"/".join(name): found.origin for name, found in at.section("worker").items()}
    assert origins["worker/name"] == "--set worker.name"
    assert origins["worker/inner/depth"] == "FRESHET_WORKER_INNER_DEPTH"
    assert origins["worker/fast"] == f"{tmp_path / 'freshet.toml'}:3"
    assert origins["worker/mode"] == "--mode"
    assert origins["worker/sizes"] == "default"


def test_a_table_that_may_be_absent_is_there_once_something_in_it_is_set(tmp_path: Path) -> None:
    assert settings(tmp_path).read(Worker).spare is None
    assert settings(tmp_path, "[worker.spare]\nshare = 0.75\n").read(Worker).spare == Inner(3, 0.75)


def test_a_shared_section_is_the_only_place_of_its_settings(tmp_path: Path) -> None:
    assert settings(tmp_path, "[common]\nwindow_ms = 5\n").read(Worker).common == Common(5)
    with pytest.raises(SettingsError, match=r"there is no setting worker\.common\.window_ms"):
        settings(tmp_path, "[worker.common]\nwindow_ms = 5\n").read(Worker)


def test_tables_of_one_kind_have_any_name(tmp_path: Path) -> None:
    text = '[kinds.buy]\nstrength = 2\n[kinds."cart.add"]\n'
    assert settings(tmp_path, text).read(Kinds) == Kinds({"buy": Kind(2.0), "cart.add": Kind()})
    assert settings(tmp_path, "", None, ['kinds."cart.add".strength=3']).read(Kinds) == Kinds({"cart.add": Kind(3.0)})


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("[worker]\nnaem = 1\n", ":2", "did you mean worker.name?"),
        ("[worker]\ndepth = 1\n", ":2", "did you mean worker.inner.depth?"),
        ("[wroker]\nname = 1\n", ":2", "did you mean worker?"),
        ("[worker]\ninner = 3\n", ":2", "write [worker.inner]"),
        ("worker = 3\n", ":1", "write [worker]"),
        ("[worker]\nname = 1\n", ":2", "expected a text, got 1"),
        ('[worker]\nsizes = ["a"]\n', ":2", "expected a list of whole numbers"),
        ("[worker]\nsizes = [1.5]\n", ":2", "expected a list of whole numbers"),
        ('[worker]\nmode = "lax"\n', ":2", "expected off or strict, got 'lax'"),
        ('[worker]\nfast = "yes"\n', ":2", "expected true or false"),
        ("\n[worker.inner]\nshare = nan\n", ":3", "expected a number, got nan"),
        ("[worker.inner]\ndepth = 0\nshare = 0.1\n", ":2:", "depth must be at least 1, got 0"),
        ('[worker]\npassword = "hush"\n', ":2", "FRESHET_WORKER_PASSWORD"),
    ],
)
def test_a_wrong_line_is_named_with_what_would_do(tmp_path: Path, text: str, place: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, text).read(Worker)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'freshet.toml'}{place}") and message in said
    assert "\n" not in said and "hush" not in said


def test_settings_that_contradict_each_other_are_all_named(tmp_path: Path) -> None:
    at = settings(tmp_path, "[worker]\nfast = true\n", None, ["worker.mode=strict"])
    with pytest.raises(SettingsError, match=r"--set worker\.mode, .*freshet\.toml:2: mode strict is not fast"):
        at.read(Worker)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FRESHET_WORKER_NAEM", "x", "did you mean FRESHET_WORKER_NAME?"),
        ("FRESHET_WORKER_INNER_DEPTH", "deep", "FRESHET_WORKER_INNER_DEPTH: worker.inner.depth: expected a whole"),
        ("FRESHET_WORKER_INNER_DEPTH", "-1", "FRESHET_WORKER_INNER_DEPTH: depth must be at least 1"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, "", {variable: value}).read(Worker)
    assert message in str(refused.value)


@pytest.mark.parametrize("override", ["", "x", "worker.name", "=3", "worker=3", "worker..name=3", "a b=3"])
def test_an_override_that_is_none_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(SettingsError, match="write --set SECTION"):
        settings(tmp_path, "", None, [override])


def test_a_secret_is_read_from_the_environment_only(tmp_path: Path) -> None:
    assert settings(tmp_path, "", {"FRESHET_WORKER_PASSWORD": "hush"}).read(Worker).password == "hush"
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, "", None, ["worker.password=hush"]).read(Worker)
    assert "hush" not in str(refused.value).replace("hush-hush", "")


def test_a_child_process_gets_the_same_settings(tmp_path: Path) -> None:
    text = '[worker]\nname = "file"\n'
    at = settings(tmp_path, text, None, ["worker.sizes=[4, 5]", 'kinds."cart.add".strength=3']).with_options(
        {("worker", "inner", "depth"): ("9", "--depth")}
    )
    config, path, *rest = at.forwarded()
    assert (config, path) == ("--config", str(tmp_path / "freshet.toml"))
    again = Settings(Path(path), {}, rest[1::2], TABLES, {"Common": "common"})
    assert again.read(Worker) == at.read(Worker) == Worker("file", sizes=(4, 5), inner=Inner(9, 0.25))
    assert again.read(Kinds) == at.read(Kinds)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", float, 3.0),
        ("3", str, "3"),
        ("007", str | int | None, 7),
        ("seven", str | int | None, "seven"),
        ("off", bool, False),
        ("a,b", tuple[str, ...], ("a", "b")),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("x/y", Path | None, Path("x/y")),
    ],
)
def test_a_text_becomes_what_the_setting_is(text: str, kind: object, value: object) -> None:
    assert from_text(text, kind) == value
    assert from_text(as_text(value), kind) == value


@pytest.mark.parametrize("kind", [int, float, bool, tuple[int, ...], Literal["a", "b"]])
@pytest.mark.parametrize("text", ["", " ", "x", "nan", "inf", "1e999", "[", '"', "\0", "None"])
def test_a_text_that_is_none_of_it_says_what_was_expected(text: str, kind: object) -> None:
    if text.strip() == "" and kind == tuple[int, ...]:
        assert from_text(text, kind) == ()
        return
    with pytest.raises(ValueError, match=f"expected {expected(kind)}"):
        from_text(text, kind)


def test_every_section_reads_as_its_class_without_anything_set() -> None:
    at = Settings(None, {})
    for section in SECTIONS.values():
        if section.name != "kafka":
            assert isinstance(at.read(section.kind()), section.kind())


def test_every_setting_says_what_it_means() -> None:
    at = Settings(None, {})
    silent = [
        ".".join(found.setting.name)
        for section in SECTIONS.values()
        for found in at.described(section)
        if not found.setting.meaning.endswith(".")
    ]
    assert silent == []


def test_no_two_settings_have_the_same_variable() -> None:
    at, seen = Settings(None, {}), dict[str, str]()
    for section in SECTIONS.values():
        for found in at.described(section):
            *_, derived = found.setting.variables or ("",)
            if derived:
                assert seen.setdefault(derived, ".".join(found.setting.name)) == ".".join(found.setting.name)


WRONG = ("", " ", "x", "-1", "0", "nan", "inf", "1e999", "9" * 25, "-9" * 12, "[", "\0", "/proc/nothing/x", "ä ö")


@pytest.mark.parametrize("name", list(SECTIONS))
def test_no_value_of_any_setting_is_more_than_refused(name: str) -> None:
    section = SECTIONS[name]
    for found in Settings(None, {}).described(section):
        for value in WRONG:
            path = found.setting.name if not section.each else (name, "k", found.setting.name[-1])
            try:
                Settings(None, {}, [f"{'.'.join(path)}={value}"]).read(section.kind())
            except SettingsError as refused:
                assert "\n" not in str(refused)
