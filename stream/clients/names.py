"""Names by which brokers recognize a worker after a restart."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

__all__ = ["NameTaken", "check_member_name", "folder_name"]


class NameTaken(RuntimeError):
    """Another member of the same name has taken this one's place; the message says what to do."""

    def __init__(self, name: str, group: str) -> None:
        super().__init__(
            f"another worker named {name} has joined the group {group} and took this one's place: give every worker a "
            "name of its own, which it keeps over restarts"
        )


def check_member_name(name: str) -> None:
    """Raises `ValueError` for a name that Kafka does not accept for a member."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name) or name in (".", ".."):
        raise ValueError(f"a worker's name has up to 249 letters, digits, dots, dashes and underscores, got {name!r}")


def folder_name(folder: Path) -> str:
    """A random name for the worker that uses this folder: made once, and kept in the folder."""
    path = folder / "name"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"name.{secrets.token_hex(8)}"  # threads of one process may be here together
    aside.write_text(secrets.token_hex(4))
    try:
        path.hardlink_to(aside)  # fails if another process was first; both then read the same name
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    return path.read_text().strip()
