"""Names by which brokers know a worker again after a restart."""

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
    """Raises `ValueError` for what Kafka does not take as a member's name."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name) or name in (".", ".."):
        raise ValueError(f"a worker's name has up to 249 letters, digits, dots, dashes and underscores, got {name!r}")


def folder_name(folder: Path) -> str:
    """A name for whoever works with this folder: drawn once, and kept in it."""
    path = folder / "name"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"name.{secrets.token_hex(8)}"  # threads of one process may be here together
    aside.write_text(secrets.token_hex(4))
    try:
        path.hardlink_to(aside)  # unless another process was first: whoever is, both read the same
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    return path.read_text().strip()
