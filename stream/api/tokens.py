"""Bearer tokens: a file says which token may do what; the file holds no secret.

    [tokens.shop]
    scopes = ["read", "write"]
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

A token is 32 random bytes, so nobody can find it from its SHA-256 by guessing, even without a salt. The file is read
again when it changes; when the new version is broken, that is logged, and the old version stays in force.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stream.api.config import ApiConfigError

__all__ = ["Scope", "Token", "Tokens", "add_token"]

log = logging.getLogger(__name__)

Scope = Literal["read", "write", "admin"]

_PREFIX = "freshet_"  # so that scanners for leaked secrets can recognize a token
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LOOK_SECONDS = 2.0  # between two looks whether the file changed


@dataclass(frozen=True)
class Token:
    name: str
    digest: bytes  # SHA-256
    scopes: frozenset[Scope]

    def allows(self, scope: Scope) -> bool:
        """`admin` may do everything."""
        return scope in self.scopes or "admin" in self.scopes


class Tokens:
    """The tokens of a file. Raises `ApiConfigError` when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = self._version()
        self._tokens = _read(path)
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def find(self, secret: str) -> Token | None:
        """The token with this secret. The search takes the same time for every token, and when there is none."""
        self._follow_file()
        digest = hashlib.sha256(secret.encode(errors="replace")).digest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def _follow_file(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        changed = self._version()
        if changed == self._changed:
            return
        self._changed = changed
        try:
            self._tokens = _read(self._path)
            log.info("%s: %d tokens", self._path, len(self._tokens))
        except ApiConfigError as error:
            log.error("the tokens stay as they were: %s", error)

    def _version(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(path: Path) -> list[Token]:
    try:
        found = tomllib.loads(path.read_text()).get("tokens", {})
    except OSError as error:
        raise ApiConfigError(f"tokens file: {error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ApiConfigError(f"{path} is not TOML: {error}") from None
    if not isinstance(found, Mapping) or not found:
        raise ApiConfigError(f"{path} holds no token: `freshet token NAME --file {path}` adds one")
    return [_token(path, name, entry) for name, entry in found.items()]


def _token(path: Path, name: str, entry: object) -> Token:
    if not isinstance(entry, Mapping) or set(entry) != {"scopes", "sha256"}:
        raise ApiConfigError(f"{path}: token {name} needs scopes and sha256, and nothing else")
    scopes, digest = entry["scopes"], entry["sha256"]
    if not isinstance(scopes, list) or not scopes or not set(scopes) <= set(get_args(Scope)):
        raise ApiConfigError(f"{path}: scopes of token {name} must be some of {', '.join(get_args(Scope))}")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise ApiConfigError(f"{path}: sha256 of token {name} must be 64 hexadecimal digits")
    return Token(name, bytes.fromhex(digest), frozenset(scopes))


def add_token(path: Path, name: str, scopes: Collection[str]) -> str:
    """Add a new token to a file, which is made if it does not exist; returns the secret. Raises `ApiConfigError`."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    entry = _entry(name, secret, scopes)
    before = path.read_text() if path.exists() else ""
    if before.strip() and any(token.name == name for token in _read(path)):
        raise ApiConfigError(f"{path} has a token {name} already: choose another name, or remove its lines")
    aside = path.with_name(path.name + ".new")
    try:
        aside.touch(mode=0o600)
        aside.write_text(f"{before.rstrip()}\n\n{entry}" if before.strip() else entry)
        aside.replace(path)  # a server that reads it meanwhile sees the old file or the new one
    except OSError as error:
        raise ApiConfigError(f"tokens file: {error}") from None
    return secret


def _entry(name: str, secret: str, scopes: Collection[str]) -> str:
    """The lines of a tokens file for one token. Raises `ApiConfigError`."""
    if not _NAME.fullmatch(name):
        raise ApiConfigError(f"a token's name is made of letters, digits, - and _, got {name!r}")
    unknown = set(scopes) - set(get_args(Scope))
    if unknown or not scopes:
        raise ApiConfigError(f"scopes must be some of {', '.join(get_args(Scope))}, got {', '.join(unknown) or 'none'}")
    listed = ", ".join(f'"{scope}"' for scope in sorted(scopes))
    return f'[tokens.{name}]\nscopes = [{listed}]\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n'
