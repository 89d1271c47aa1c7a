"""How far imports have come, so that an interrupted one goes on where it stopped.

Sending everything again would be safe, because events have ids, but only as long as the server remembers them, and
slow. One small file per (server, tenant, kind, file), written after each batch that was acknowledged and removed when
the file is done. A checkpoint is only believed where the file still begins with what was read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first `pieces` of a file are done; `digest` is over them. The last record that the server took was made of
    piece `sent` (counted from 1; 0 for none) and got the number `seq`."""

    pieces: int
    digest: str
    sent: int
    seq: int
    stored: int
    duplicates: int
    refused: int
    replaced: int


def default_folder(environment: Mapping[str, str]) -> Path:
    """Where programs keep state, by the XDG base directory specification."""
    state = environment.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "decklog" / "import"


class Checkpoints:
    """Checkpoints in a folder, which is made when it is needed. Raises OSError where it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, key: tuple[str, ...]) -> Path:
        return self._folder / (hashlib.sha256("\n".join(key).encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".json")

    def load(self, key: tuple[str, ...]) -> Checkpoint | None:
        try:
            return msgspec.json.decode(self._file(key).read_bytes(), type=Checkpoint)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None  # none, or of another version: the import begins anew, which is safe

    def save(self, key: tuple[str, ...], checkpoint: Checkpoint) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(key)
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(checkpoint))
        beside.replace(file)

    def forget(self, key: tuple[str, ...]) -> None:
        self._file(key).unlink(missing_ok=True)
