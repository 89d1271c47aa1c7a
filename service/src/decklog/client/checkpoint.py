"""Checkpoints of imports, so that an interrupted import continues where it stopped.

To send everything again would be slow, and safe only while the server remembers the events' ids. There is one small file for
each server, tenant, kind and imported file. It is written after each acknowledged batch and removed when the whole
import ends. A checkpoint counts only if the imported file still begins with the same content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the import of one file has come.

    The first `pieces` pieces of the file are done, and `digest` is over them. The last record that the server stored was made from
    piece `sent` (counted from 1; 0 for none) and has the sequence number `seq`.
    """

    pieces: int
    digest: str
    sent: int
    seq: int
    stored: int
    duplicates: int
    refused: int
    skipped: int
    replaced: int


def default_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of checkpoints, by the XDG base directory specification."""
    state = environment.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "decklog" / "import"


class Checkpoints:
    """Checkpoints in a folder, which is created by the first `save`. A key is (server, tenant, kind, file)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, key: tuple[str, ...]) -> Path:
        return self._folder / (hashlib.sha256("\n".join(key).encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".json")

    def load(self, key: tuple[str, ...]) -> Checkpoint | None:
        """Return the checkpoint, or None where there is none that this version can read: a new import is safe."""
        try:
            return msgspec.json.decode(self._file(key).read_bytes(), type=Checkpoint)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def save(self, key: tuple[str, ...], checkpoint: Checkpoint) -> None:
        """Replace the checkpoint as one step. Raises OSError where the folder cannot be written."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(key)
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(checkpoint))
        beside.replace(file)

    def forget(self, key: tuple[str, ...]) -> None:
        """Remove the checkpoint, if there is one."""
        self._file(key).unlink(missing_ok=True)
