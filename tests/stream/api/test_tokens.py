"""The file of tokens: what it holds, what it refuses, and how it is followed."""

import hashlib
import os
import re
import time
from pathlib import Path

import pytest

from stream.api.config import ApiConfigError
from stream.api.tokens import Tokens, add_token


def test_a_token_is_found_by_its_secret_and_the_file_holds_only_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    shop, boss = add_token(path, "shop", ["read", "write"]), add_token(path, "boss", ["admin"])
    tokens = Tokens(path)
    found, admin = tokens.find(shop), tokens.find(boss)
    assert found is not None and found.name == "shop" and admin is not None and admin.name == "boss"
    assert found.allows("read") and found.allows("write") and not found.allows("admin")
    assert admin.allows("read") and admin.allows("write") and admin.allows("admin")
    assert tokens.find("") is None and tokens.find(shop[:-1]) is None and tokens.find(shop + "x") is None
    assert shop not in path.read_text() and hashlib.sha256(shop.encode()).hexdigest() in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_name_is_given_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    add_token(path, "shop", ["read"])
    with pytest.raises(ApiConfigError, match="has a token shop already"):
        add_token(path, "shop", ["read"])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds no token"),
        ("tokens = 7", "holds no token"),
        ("[tokens.a", "is not TOML"),
        ('[tokens.a]\nscopes = ["read"]', "needs scopes and sha256"),
        ('[tokens.a]\nscopes = ["root"]\nsha256 = "' + "0" * 64 + '"', "scopes of token a must be some of"),
        ('[tokens.a]\nscopes = []\nsha256 = "' + "0" * 64 + '"', "scopes of token a must be some of"),
        ('[tokens.a]\nscopes = ["read"]\nsha256 = "secret"', "64 hexadecimal digits"),
        ('[tokens.a]\nscopes = ["read"]\nsha256 = "' + "0" * 64 + '"\nsecret = "x"', "and nothing else"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(ApiConfigError, match=re.escape(what)):
        Tokens(path)
    with pytest.raises(ApiConfigError, match="No such file"):
        Tokens(tmp_path / "none.toml")


@pytest.mark.parametrize(("name", "scopes"), [("a b", ["read"]), ("", ["read"]), ("a", ["root"]), ("a", [])])
def test_a_token_needs_a_plain_name_and_known_scopes(tmp_path: Path, name: str, scopes: list[str]) -> None:
    with pytest.raises(ApiConfigError):
        add_token(tmp_path / "tokens.toml", name, scopes)
    assert not (tmp_path / "tokens.toml").exists()


def test_the_file_is_followed_and_a_broken_version_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokens.toml"
    old = add_token(path, "old", ["read"])
    tokens = Tokens(path)
    now = time.monotonic()

    def later(seconds: float) -> None:
        monkeypatch.setattr("stream.api.tokens.time.monotonic", lambda: now + seconds)

    new = add_token(path, "new", ["read"])
    assert tokens.find(new) is None  # it looks every two seconds
    later(10)
    assert tokens.find(new) is not None and tokens.find(old) is not None
    path.write_text("[tokens")
    later(20)
    assert tokens.find(new) is not None
    path.unlink()
    later(30)
    assert tokens.find(new) is not None
    revoked = add_token(path, "newest", ["read"])
    os.utime(path)
    later(40)
    assert tokens.find(revoked) is not None and tokens.find(old) is None
