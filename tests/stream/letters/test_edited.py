"""What is saved comes back byte for byte unless somebody changes it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.letters.edited import read_edited, save_letters
from stream.letters.mending import Mended
from stream.letters.reading import Letter, LetterError


def letter(offset: int, key: bytes | None, value: bytes | None) -> Letter:
    return Letter(0, offset, 1, "schema", "why", "interactions", 0, offset, key, value, ())


VALUES = [
    b'{"user":"ann","item":"tea"}',
    b'{"user": "ann"}',
    b'{"user": "ann", "user": "bob"}',
    b'{"n": 1.0, "m": 123456789012345678901234567890}',
    b'{"base64": "eA=="}',
    b'"text"',
    b"{broken",
    b"",
    b"\xff\0",
    "straße".encode(),
    None,
]


def test_values_come_back(tmp_path: Path) -> None:
    found = [letter(n, b"ann", value) for n, value in enumerate(VALUES)]
    assert save_letters(tmp_path / "f", found) == len(VALUES)
    read = read_edited(tmp_path / "f")
    for one in found:
        value = read[one.name].value
        if value != one.value:  # but for white space
            assert one.value is not None and value == b"".join(one.value.split())
    line = json.loads((tmp_path / "f").read_text().splitlines()[0])
    assert line == {
        "letter": "0/0",
        "reason": "schema",
        "detail": "why",
        "key": "ann",
        "value": {"user": "ann", "item": "tea"},
    }


@given(key=st.none() | st.binary(), value=st.none() | st.binary())
def test_any_bytes_come_back(key: bytes | None, value: bytes | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("letters") / "f"
    save_letters(file, [letter(3, key, value)])
    assert read_edited(file) == {"0/3": Mended(key, value)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"letter": "0/1"}\n{broken\n', ":2: "),
        ("[1]\n", ":1: a line is a JSON object"),
        ('{"value": "x"}\n', ':1: there is no "letter"'),
        ('{"letter": "0/1"}\n\n{"letter": "0/1"}\n', ":3: letter 0/1 stands in the file twice"),
        ('{"letter": "0/1", "value": {"base64": "?"}}\n', ":1: base64 holds no base64"),
        ("\n", "no letters in it"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    file.write_text(text)
    with pytest.raises(LetterError, match=f"^{file}") as error:
        read_edited(file)
    assert said in str(error.value)


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    with pytest.raises(LetterError, match="is there already"):
        save_letters(tmp_path / "f", [])
    with pytest.raises(LetterError, match="No such file"):
        read_edited(tmp_path / "g")
