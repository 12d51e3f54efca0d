"""A settings file as a person writes it, and where each value stands."""

from pathlib import Path

import pytest

from stream.cli.settings_file import SettingsFileError, read_settings_file


def read(tmp_path: Path, text: str) -> dict[str, tuple[object, int]]:
    path = tmp_path / "freshet.toml"
    path.write_text(text)
    return {"/".join(name): (found.value, found.line) for name, found in read_settings_file(path).items()}


def test_every_value_has_its_full_name_and_the_line_it_begins_at(tmp_path: Path) -> None:
    text = """\
# a comment
[updater]   # another
checkpoint_seconds = 2.0
limits = { ahead_ms = 3, text = "a ] b" }

[model]
dims = [
  1,  # one
  2,
]
text = '''
[looks.like]
a = "table"
'''
after.dots = true
"""
    assert read(tmp_path, text) == {
        "updater/checkpoint_seconds": (2.0, 3),
        "updater/limits/ahead_ms": (3, 4),
        "updater/limits/text": ("a ] b", 4),
        "model/dims": ([1, 2], 7),
        "model/text": ('[looks.like]\na = "table"\n', 11),
        "model/after/dots": (True, 15),
    }


def test_a_table_without_values_says_something_by_its_name(tmp_path: Path) -> None:
    assert read(tmp_path, '[events."cart.add"]\n[events.view]\nstrength = 0.5\n') == {
        "events/cart.add": ({}, 1),
        "events/view/strength": (0.5, 3),
    }


def test_windows_line_ends_and_a_byte_order_mark_are_nothing_special(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff[topics]\r\npartitions = 3\r\n") == {"topics/partitions": (3, 2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[topics]\npartitions = \n", "line 2"),
        ("[topics]\n[topics]\n", "twice"),
        ("[topics]\npartitions = 1\npartitions = 2\n", "overwrite"),
        ("\n[[topics]]\n", ":2: write [name]"),
    ],
)
def test_what_is_no_settings_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsFileError) as refused:
        read(tmp_path, text)
    assert str(tmp_path / "freshet.toml") in str(refused.value) and message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsFileError, match="No such file"):
        read_settings_file(tmp_path / "nothing.toml")
    with pytest.raises(SettingsFileError, match="Is a directory"):
        read_settings_file(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'a = "\xe9"\n')
    with pytest.raises(SettingsFileError, match="UTF-8"):
        read_settings_file(tmp_path / "latin.toml")
