"""A provisioner that keeps its tenants in a folder, so that a test can watch and disturb an operator in another process.

It keeps the promises of the real one that the operator relies on (adoption, conflicts, keys by hash, conditions per part)
without any backend. Faults are files: `<tenant>.fault` with the name of a part breaks that part, and `<tenant>.hold` makes a
pass wait after it has stored the keys and before it registers them. All processes of the folder write their passes to `journal`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from decklog.domain.errors import DecklogError
from decklog.domain.identity.access import Role
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.names import index_name, queue_name, schema_name
from decklog.domain.tenancy.removal import deletion_refusal
from decklog.domain.tenancy.status import READY, SYNCED, Condition, KeyStatus, Part, TenantStatus, Verdict, conditions
from decklog.domain.tenant import State
from decklog.services.tenancy.vaults import Handout, KeyVault
from decklog.settings import Settings

FOLDER_VARIABLE = "TEST_PROVISIONING_FOLDER"
ROLES = (Role.WRITER, Role.AUDITOR, Role.ADMIN)


class Row(msgspec.Struct):
    id: int
    uid: str
    state: int = State.ACTIVE
    generation: int = 0
    passes: int = 0
    hashes: dict[str, str] = {}
    revision: int = 0
    rotated: str = ""
    conditions: tuple[Condition, ...] = ()


class Entry(msgspec.Struct, frozen=True):
    """A line of the journal: a process began or ended a pass; `at` in seconds of the machine's monotonic clock."""

    pid: int
    tenant: str
    event: str
    at: float


class FolderProvisioner:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def row(self, name: str) -> Row | None:
        path = self.folder / f"{name}.json"
        return msgspec.json.decode(path.read_bytes(), type=Row) if path.exists() else None

    @staticmethod
    def hashes_of(keys: dict[str, str]) -> dict[str, str]:
        """Return the hashes of these keys in the format of a row."""
        return {role: _hash(key) for role, key in keys.items()}

    def journal(self) -> list[Entry]:
        """Return all lines of the journal, oldest first."""
        path = self.folder / "journal"
        return [msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines()] if path.exists() else []

    @contextmanager
    def _journaled(self, tenant: str) -> Iterator[None]:
        def note(event: str) -> None:
            line = msgspec.json.encode(Entry(os.getpid(), tenant, event, time.monotonic())) + b"\n"
            with (self.folder / "journal").open("ab", buffering=0) as journal:
                journal.write(line)  # one write to the end of the file: processes do not mix their lines

        note("begin")
        try:
            yield
        finally:
            note("end")

    def _save(self, name: str, row: Row) -> None:
        fresh = self.folder / f"{name}.json.new"
        fresh.write_bytes(msgspec.json.encode(row))
        fresh.replace(self.folder / f"{name}.json")

    def _fault(self, name: str) -> str:
        path = self.folder / f"{name}.fault"
        return path.read_text().strip() if path.exists() else ""

    async def reconcile(self, manifest: Manifest, vault: KeyVault | None, previous: Sequence[Condition] = ()) -> TenantStatus:
        assert vault is not None
        with self._journaled(manifest.name):
            return await self._reconcile(manifest, vault)

    async def ensure_platform_tenant(self) -> TenantStatus:
        there = dict.fromkeys((READY, *Part, SYNCED), Verdict("True", "Ready", "There."))
        return TenantStatus(conditions(there, 1, (), datetime.now(UTC)), 1)

    async def _reconcile(self, manifest: Manifest, vault: KeyVault) -> TenantStatus:
        row = self.row(manifest.name) or Row(id=secrets.randbits(31), uid=manifest.uid)
        if row.uid != manifest.uid and row.state != State.DELETED:
            refused = Verdict("False", "Conflict", f"The tenant {manifest.name!r} belongs to another object.")
            return self._status(manifest, row, {READY: refused, SYNCED: refused})
        row.uid, row.state, row.generation = manifest.uid, State.ACTIVE, manifest.generation
        fault = self._fault(manifest.name)
        verdicts: dict[str, Verdict] = {}
        for part in (Part.DATABASE, Part.SEARCH, Part.QUEUE):
            broken = fault == part
            verdicts[part] = (
                Verdict("False", "Unavailable", f"{part} does not answer.") if broken else Verdict("True", "Ready", "There.")
            )
        verdicts[Part.CREDENTIALS] = await self._keys(manifest, vault, row)
        bad = [verdict for verdict in verdicts.values() if verdict.status != "True"]
        verdicts[SYNCED] = Verdict("False", "Failed", "Not all was done.") if bad else Verdict("True", "Done", "All was done.")
        summary = bad[0] if bad else Verdict("True", "Ready", "Everything is there.")
        row.passes += 1
        status = self._status(manifest, row, {READY: summary, **verdicts})
        self._save(manifest.name, row)
        return status

    async def _keys(self, manifest: Manifest, vault: KeyVault, row: Row) -> Verdict:
        try:
            found = await vault.read(manifest) or Handout({})
            good = {role: key for role, key in found.keys.items() if row.hashes.get(role.value) == _hash(key)}
            if manifest.rotate not in ("", row.rotated):
                good = {}
            if missing := [role for role in ROLES if role not in good]:
                row.revision += 1
                keys = {**good, **{role: f"dlk_{secrets.token_hex(8)}_{secrets.token_hex(32)}" for role in missing}}
                await vault.write(manifest, Handout(keys, row.revision, ""))
                while (self.folder / f"{manifest.name}.hold").exists():
                    (self.folder / f"{manifest.name}.held").touch()
                    await asyncio.sleep(0.02)
                row.hashes, row.rotated = {role.value: _hash(key) for role, key in keys.items()}, manifest.rotate or row.rotated
            elif (found.revision, found.valid_until, found.drift) != (row.revision, "", ()):
                row.revision += 1
                await vault.write(manifest, Handout(good, row.revision, ""))
        except DecklogError as error:
            return Verdict("False", "Refused", error.detail)
        return Verdict("True", "Ready", "Three keys are given out.")

    async def remove(self, manifest: Manifest, vault: KeyVault | None = None, previous: Sequence[Condition] = ()) -> TenantStatus:
        with self._journaled(manifest.name):
            held = deletion_refusal(manifest.spec)
            if held is None:
                return self._remove(manifest)
            assert vault is not None
            status, row = await self._reconcile(manifest, vault), self.row(manifest.name)
            reported = {each.type: Verdict(each.status, each.reason, each.message) for each in status.conditions}
            refused = Verdict("False", held.reason, held.message)
            return self._status(manifest, row or Row(0, manifest.uid), {**reported, SYNCED: refused})

    def _remove(self, manifest: Manifest) -> TenantStatus:
        row = self.row(manifest.name)
        done = Verdict("True", "Removed", "Keys are revoked; data is kept.")
        if row is None or row.uid != manifest.uid:
            return self._status(manifest, Row(0, manifest.uid), {READY: done, SYNCED: done})
        if self._fault(manifest.name) == "remove":
            broken = Verdict("False", "Unavailable", "The database does not answer; the deletion waits for it.")
            return self._status(manifest, row, {READY: broken, SYNCED: broken})
        row.state, row.hashes = State.DELETED, {}
        self._save(manifest.name, row)
        return self._status(manifest, row, {READY: Verdict("False", "Removed", "Data is kept."), SYNCED: done})

    def _status(self, manifest: Manifest, row: Row, verdicts: dict[str, Verdict]) -> TenantStatus:
        row.conditions = conditions(verdicts, manifest.generation, row.conditions, datetime.now(UTC))
        spec = manifest.spec
        names = (schema_name(manifest.name, spec), index_name(manifest.name, spec), queue_name(manifest.name, spec))
        keys = KeyStatus(row.revision, "", "", row.rotated, None, None)
        return TenantStatus(row.conditions, manifest.generation, row.id, *names, keys)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@asynccontextmanager
async def open_folder(settings: Settings) -> AsyncIterator[FolderProvisioner]:
    """As `decklog.assembly.control_plane.open_provisioner`, on the folder that the environment names."""
    yield FolderProvisioner(Path(os.environ[FOLDER_VARIABLE]))
