"""The tenant to which the records of a folder belong, so that a key of another tenant sends none of them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from decklog_client.answers import Answer, Body

NAME = "tenant.json"


class Owner(msgspec.Struct, frozen=True):
    """A tenant of a server."""

    url: str
    tenant: str


def claim(folder: Path, owner: Owner) -> Owner:
    """Return the owner of a folder, which is this one where there was none. Raises OSError."""
    path = folder / NAME
    beside = folder / f"{NAME}.{os.urandom(8).hex()}"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except FileNotFoundError:
        pass
    except msgspec.DecodeError:
        path.unlink(missing_ok=True)  # a power cut tore it
    beside.write_bytes(msgspec.json.encode(owner))
    try:
        os.link(beside, path)
    except FileExistsError:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    finally:
        beside.unlink()
    return owner


def verdict(folder: Path, url: str, whoami: Answer) -> Answer | None:
    """Return None where the credential may send what is in the folder, else the answer that says why not."""
    if whoami.status != 200:
        return whoami
    if not whoami.body.role:
        return Answer(502, Body("unknown", "The answer to whoami is none of Decklog's."), whoami.retry_after)
    if whoami.body.tenant is None:
        return _refused("forbidden", f"A key of the role {whoami.body.role} belongs to no tenant. Use one of the role writer.")
    mine = Owner(url, whoami.body.tenant)
    owner = claim(folder, mine)
    if owner == mine:
        return None
    return _refused(
        "spool-of-another-tenant",
        f"The records of {folder} are for the tenant {owner.tenant} of {owner.url}, and the key is one of {mine.tenant} of {mine.url}. "
        f"Give each tenant a folder. If the server has only moved, delete {NAME} in the folder.",
    )


def _refused(code: str, detail: str) -> Answer:
    return Answer(403, Body(code, detail), None)
