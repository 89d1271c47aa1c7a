"""Deleting by Archive, on real databases: all that was stored is in the archive, record by record, before anything goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from decklog.domain.archive.manifest import ArchiveError, ArchiveManifest, ArchiveObjects
from decklog.domain.errors import Code, DecklogError
from decklog.domain.log import LogName
from decklog.domain.records.append import Appended, AppendRequest
from decklog.domain.records.record import StoredRecord
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.status import ARCHIVE, READY, SYNCED
from decklog.domain.tenant import Isolation, Tenant
from decklog.files.archive import FolderObjects
from decklog.parquet.part import decode, encode
from decklog.s3.objects import S3Objects
from decklog.services.archive.archiver import MARKER, Archiver
from decklog.services.archive.verify import check_archive
from decklog.services.following.lines import Ended
from decklog.services.tenancy.provisioning import Provisioner
from decklog.timescale.connection import WORKER_ROLE, Pool
from decklog.timescale.control.provision import CONNECTIONS_MAX, PostgresProvisioning
from decklog.timescale.control.registry import PostgresRegistry
from decklog.timescale.records.archive import PostgresArchives
from decklog.timescale.records.cursors import PostgresCursors
from decklog.workers.duties.archiver import Rounds
from decklog.workers.periodic import Turn
from tests.backends import S3Server
from tests.services.test_removal import left_in_the_database, platform_log, stops_apply_everywhere, told
from tests.services.test_rotation import Fuse, FusedDatabase, Killed
from tests.support.archives import TamperedObjects, archive_settings, bucket
from tests.support.control import Control, control, on_each_variant
from tests.support.records import prepared
from tests.support.vaults import MemoryVault

__all__ = ["control"]

RECORDS = 23
ODD = '{"emoji": "🗝 \\u2028", "number": 123456789012345678901234567890, "deep": [[[{}]]]}'


class Workshop:
    """One installation's workers, as far as archiving is concerned: any number of archivers over one archive."""

    def __init__(self, control: Control, objects: ArchiveObjects) -> None:
        self.control = control
        self.objects = TamperedObjects(objects)

    async def archiver(self, **options: Any) -> Archiver:
        pool = await self.control.database.pool(WORKER_ROLE)
        small: dict[str, Any] = {"part_bytes": 1 << 20, "part_records": 7, **options}
        return Archiver(PostgresArchives(pool), PostgresCursors(pool), self.objects, encode, decode, **small)

    async def work(self) -> None:
        """As a worker does, until nothing is left to do."""
        archiver = await self.archiver()
        rounds = Rounds(archiver)
        for _ in range(20):
            if await rounds.turn() is not Turn.MORE:
                return
        raise AssertionError("archiving does not come to an end")

    async def manifest(self) -> tuple[str, ArchiveManifest]:
        """The last one: a log that grew meanwhile has another."""
        name = [name for name in self.objects.names if "/manifest-" in name][-1]
        return name, msgspec.json.decode(await self.objects.get(name, bytes_max=1 << 20), type=ArchiveManifest)

    async def archived(self) -> dict[str, list[StoredRecord]]:
        """What the archive holds, by log."""
        _, manifest = await self.manifest()
        return {
            name: [record for part in log.parts for record in decode(await self.objects.get(part.name, bytes_max=1 << 24))]
            for name, log in manifest.logs.items()
        }


@pytest.fixture
def workshop(control: Control, tmp_path: Path) -> Workshop:
    return Workshop(control, FolderObjects(tmp_path / "archive"))


async def fill(control: Control, count: int = RECORDS, name: str = "acme") -> Tenant:
    store, tenant = await control.database.records(), await control.tenant(name)
    for at in range(0, count, 10):
        some = [prepared(id=f"n-{n}", metadata=msgspec.json.decode(ODD)) for n in range(at, min(count, at + 10))]
        [stored] = await store.append([AppendRequest(tenant, LogName.EVENTS, some)])
        assert isinstance(stored, Appended)
    return tenant


async def stored(control: Control, tenant: Tenant) -> dict[str, list[StoredRecord]]:
    """Everything that the database has of the tenant, as the superuser sees it."""
    rows = await control.database.execute(
        f"SELECT log, epoch, seq, received_at, digest, content FROM {tenant.schema}.records WHERE tenant_id = $1 ORDER BY seq",
        tenant.id,
    )
    return {log.text: [StoredRecord(*row[1:]) for row in rows if row[0] == log.value] for log in LogName}


async def stopped(control: Control, provisioner: Provisioner, manifest: Manifest) -> None:
    """Deleted, and every process has heard of it."""
    await provisioner.remove(manifest)
    await stops_apply_everywhere(control)


def by_archive(control: Control, isolation: Isolation = Isolation.DEDICATED, **more: Any) -> Manifest:
    return control.manifest(isolation=isolation.value, deletionPolicy="Archive", **more)


@pytest.mark.parametrize("isolation", Isolation)
@on_each_variant
async def test_archive_holds_every_stored_record_before_the_tenant_is_removed(
    control: Control, workshop: Workshop, isolation: Isolation
) -> None:
    provisioner, vault, manifest = control.provisioner(), MemoryVault(), by_archive(control, isolation)
    # Whose policy is another one until the very deletion; and a neighbour, whose records are not ours.
    before = control.manifest(isolation=isolation.value)
    assert (await provisioner.reconcile(before, vault)).ready
    assert (await provisioner.reconcile(control.manifest("beta", uid="uid-b", isolation="Shared"), vault)).ready
    tenant = await fill(control)
    await fill(control, 3, "beta")

    going = await provisioner.remove(manifest)
    assert told(going, SYNCED) == told(going, ARCHIVE) == ("False", "NoArchive")
    await workshop.work()
    waiting = await provisioner.remove(manifest)
    assert told(waiting, SYNCED) == told(waiting, ARCHIVE) == ("False", "Archiving")
    assert "0 of" in waiting.condition(SYNCED).message
    await stops_apply_everywhere(control)
    assert told(await provisioner.remove(manifest), SYNCED) == ("False", "Archiving"), "nothing is in the archive yet"

    was = await stored(control, tenant)
    assert len(was["events"]) == RECORDS
    assert was["access"], "what was done to it stands there"
    await workshop.work()
    assert await workshop.archived() == was
    name, written = await workshop.manifest()
    assert {log: archived.next_seq for log, archived in written.logs.items()} == {log: len(rows) for log, rows in was.items()}
    assert len(written.logs["events"].parts) > 1
    assert await stored(control, tenant) == was

    gone = await provisioner.remove(manifest)
    assert told(gone, SYNCED) == ("True", "Removed")
    assert told(gone, ARCHIVE) == ("True", "Archived")
    assert name in gone.condition(ARCHIVE).message
    assert (gone.purged_after is None) is (isolation is Isolation.DEDICATED)
    assert await left_in_the_database(control, tenant) == {}
    for table in ("archives", "archive_parts"):
        assert await control.database.execute(f"SELECT 1 FROM decklog.{table}") == []
    [entry] = await platform_log(control)
    assert name in entry
    report = await check_archive(workshop.objects, name, decode)
    assert (report.sound, report.records) == (True, sum(map(len, was.values())))
    assert (await provisioner.remove(manifest)).synced
    assert len((await stored(control, await control.tenant("beta")))["events"]) == 3


async def test_archive_includes_records_beyond_retention_that_are_still_stored(control: Control, workshop: Workshop) -> None:
    provisioner, manifest = control.provisioner(), by_archive(control, retention={"days": 1})
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control)
    await control.database.execute(
        f"UPDATE {tenant.schema}.records SET received_at = received_at - interval '1 hour' WHERE seq < 5"
    )
    await control.database.execute("UPDATE decklog.tenants SET retention_days = 1 WHERE name = 'acme'")
    await stopped(control, provisioner, manifest)
    was = await stored(control, tenant)
    await workshop.work()
    assert await workshop.archived() == was


async def test_archive_condition_reports_an_unusable_archive_before_a_deletion(control: Control, workshop: Workshop) -> None:
    provisioner, vault, manifest = (
        control.provisioner(),
        MemoryVault(),
        by_archive(control, retention={"days": 30, "archiveDays": 400}),
    )
    status = await provisioner.reconcile(manifest, vault)
    assert (status.ready, told(status, ARCHIVE)) == (True, ("False", "NoArchive"))
    await workshop.work()
    status = await provisioner.reconcile(manifest, vault, status.conditions)
    assert told(status, ARCHIVE) == ("True", "Available")
    assert workshop.objects.place in status.condition(ARCHIVE).message
    assert "400 days" in status.condition(ARCHIVE).message
    workshop.objects.failing = ArchiveError("AccessDenied", "The workers may not do s3:PutObject.", Code.FORBIDDEN)
    await workshop.work()
    status = await provisioner.reconcile(manifest, vault, status.conditions)
    assert told(status, ARCHIVE) == ("False", "AccessDenied")
    assert "s3:PutObject" in status.condition(ARCHIVE).message
    assert (status.ready, status.synced) == (True, True)
    await control.database.execute("UPDATE decklog.archive_place SET told_at = told_at - interval '1 hour', reason = ''")
    status = await provisioner.reconcile(manifest, vault, status.conditions)
    assert told(status, ARCHIVE) == ("False", "NoArchive"), "no worker says so any more"
    retained = await provisioner.reconcile(control.manifest(generation=2), vault, status.conditions)
    assert ARCHIVE not in {condition.type for condition in retained.conditions}


async def test_removal_waits_while_the_archive_is_down_and_continues_when_it_is_back(
    control: Control, workshop: Workshop
) -> None:
    provisioner, manifest = control.provisioner(), by_archive(control)
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control)
    await stopped(control, provisioner, manifest)
    was = await stored(control, tenant)
    for reason in ("Unreachable", "NoBucket", "AccessDenied"):
        workshop.objects.failing = ArchiveError(reason, "It cannot be had.")
        await workshop.work()
        status = await provisioner.remove(manifest)
        assert told(status, SYNCED) == told(status, ARCHIVE) == ("False", reason)
        assert await stored(control, tenant) == was
    workshop.objects.failing = None
    await workshop.work()
    assert (await provisioner.remove(manifest)).synced
    assert await workshop.archived() == was


@pytest.mark.parametrize("at", [0, 2, 5], ids=["first part", "another part", "manifest"])
async def test_removal_waits_when_an_uploaded_part_reads_back_differently(control: Control, workshop: Workshop, at: int) -> None:
    provisioner, manifest = control.provisioner(), by_archive(control)
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control)
    await stopped(control, provisioner, manifest)
    was = await stored(control, tenant)
    archiver = await workshop.archiver()
    [due] = await archiver.due(limit=9)
    put, count = workshop.objects.put, 0

    async def spoiled(name: str, content: bytes, **options: Any) -> None:
        nonlocal count
        count += 1
        workshop.objects.spoil = content[:-1] + b"?" if count == at + 1 else None
        await put(name, content, **options)

    workshop.objects.put = spoiled  # type: ignore[method-assign]
    with pytest.raises(ArchiveError) as caught:
        await archiver.advance(due)
    assert caught.value.reason == "Damaged"
    assert told(await provisioner.remove(manifest), SYNCED)[0] == "False"
    assert await stored(control, tenant) == was
    assert await archiver.advance(due) is Ended.DONE
    assert await workshop.archived() == was
    assert (await provisioner.remove(manifest)).synced


@pytest.mark.parametrize("how", ["lost", "changed"])
async def test_archiver_exports_a_part_again_that_disappears_before_the_manifest(
    control: Control, workshop: Workshop, tmp_path: Path, how: str
) -> None:
    provisioner, manifest = control.provisioner(), by_archive(control)
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control)
    await stopped(control, provisioner, manifest)
    archiver, get = await workshop.archiver(), workshop.objects.get
    [due] = await archiver.due(limit=9)

    async def tampered(name: str, *, bytes_max: int) -> bytes:
        if name == workshop.objects.names[-1] and "/access/" in name:  # the last part is being read back: the second one goes
            victim = tmp_path / "archive" / workshop.objects.names[1]
            victim.unlink() if how == "lost" else victim.write_bytes(b"PAR1")
            workshop.objects.get = get  # type: ignore[method-assign]
        return await get(name, bytes_max=bytes_max)

    workshop.objects.get = tampered  # type: ignore[method-assign]
    with pytest.raises(ArchiveError):
        await archiver.advance(due)
    assert told(await provisioner.remove(manifest), SYNCED)[0] == "False"
    was = await stored(control, tenant)
    assert await archiver.advance(due) is Ended.DONE
    assert await workshop.archived() == was


async def test_archiver_archives_records_stored_after_the_first_manifest(control: Control, workshop: Workshop) -> None:
    """A stream of a process that stood still may leave its last record late."""
    provisioner, manifest = control.provisioner(), by_archive(control)
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control)
    await stopped(control, provisioner, manifest)
    await workshop.work()
    late = await control.database.records()
    [result] = await late.append([AppendRequest(tenant, LogName.ACCESS, [prepared(action="log.stream")], metered=False)])
    assert isinstance(result, Appended)
    assert told(await provisioner.remove(manifest), SYNCED) == ("False", "Archiving")
    was = await stored(control, tenant)
    workshop.objects.names.clear()
    await workshop.work()
    assert await workshop.archived() == was

    # Between the look and the removal: the database compares once more, under the locks of the heads.
    pool = Pool(control.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None)

    class Late(FusedDatabase):
        async def observe_and_write(self) -> None:
            [again] = await late.append([AppendRequest(tenant, LogName.ACCESS, [prepared(action="log.stream")], metered=False)])
            assert isinstance(again, Appended)

    class LateFuse(Fuse):
        async def run(self, step: Awaitable[None]) -> None:
            await database.observe_and_write()
            await step

    fuse = LateFuse()
    database = Late(PostgresProvisioning(pool), fuse)
    racing = Provisioner(database, None, None, directory=PostgresRegistry(pool), prefix=control.prefix)
    refused = await racing.remove(manifest)
    assert told(refused, SYNCED) == ("False", "Conflict")
    assert len((await stored(control, tenant))["access"]) > len(was["access"])
    workshop.objects.names.clear()
    await workshop.work()
    assert (await provisioner.remove(manifest)).synced
    await pool.close()


async def test_archiver_leaves_one_archive_when_two_workers_run_at_once(control: Control, workshop: Workshop) -> None:
    provisioner, manifest = control.provisioner(), by_archive(control)
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control, 60)
    await stopped(control, provisioner, manifest)
    was = await stored(control, tenant)
    archivers = [await workshop.archiver() for _ in range(3)]
    [due] = await archivers[0].due(limit=9)
    for _ in range(20):
        ended = await asyncio.gather(*(archiver.advance(due) for archiver in archivers))
        if Ended.DONE in ended:
            break
    assert set(ended) <= {Ended.DONE, Ended.HELD}
    assert await workshop.archived() == was
    assert await archivers[0].due(limit=9) == []


async def test_archiver_changes_nothing_after_its_lease_is_lost(control: Control, workshop: Workshop) -> None:
    provisioner, manifest = control.provisioner(), by_archive(control)
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control)
    await stopped(control, provisioner, manifest)
    was = await stored(control, tenant)
    slow, quick = await workshop.archiver(), await workshop.archiver()
    [due] = await slow.due(limit=9)
    get = workshop.objects.get

    async def stalled(name: str, *, bytes_max: int) -> bytes:
        workshop.objects.get = get  # type: ignore[method-assign]
        await control.database.execute("UPDATE decklog.cursors SET leased_until = 'epoch' WHERE consumer = 'archiver'")
        assert await quick.advance(due) is Ended.DONE
        return await get(name, bytes_max=bytes_max)

    workshop.objects.get = stalled  # type: ignore[method-assign]
    assert await slow.advance(due) is Ended.LOST
    assert await workshop.archived() == was
    assert (await provisioner.remove(manifest)).synced


class FusedArchiver(Archiver):
    """An archiver whose every step that changes something may be its last."""

    def __init__(self, fuse: Fuse, archives: PostgresArchives, cursors: PostgresCursors, objects: TamperedObjects) -> None:
        super().__init__(_Fused(archives, fuse), _Fused(cursors, fuse), _Fused(objects, fuse), encode, decode, part_records=9)


class _Fused:
    _CHANGING = ("add", "finish", "move", "put")

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name not in self._CHANGING:
            return call

        async def fused(*words: Any, **options: Any) -> Any:
            result: list[Any] = []

            async def step() -> None:
                result.append(await call(*words, **options))

            await self._fuse.run(step())
            return result[0]

        return fused


@pytest.mark.parametrize(("isolation", "after"), [(Isolation.DEDICATED, True), (Isolation.SHARED, False)], ids=str)
async def test_deletion_by_archive_loses_no_record_when_killed_between_any_two_actions(
    control: Control, workshop: Workshop, isolation: Isolation, after: bool
) -> None:
    """Operator and worker alike: whoever is killed, another one goes on."""
    fuse = Fuse()
    owner = Pool(control.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None)
    service = await control.database.pool(WORKER_ROLE)

    def operator() -> Provisioner:
        database = FusedDatabase(PostgresProvisioning(owner), fuse)
        return Provisioner(database, None, None, directory=PostgresRegistry(owner), prefix=control.prefix)

    def worker() -> FusedArchiver:
        return FusedArchiver(fuse, PostgresArchives(service), PostgresCursors(service), workshop.objects)

    kills = steps = 0

    async def surviving(work: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal kills
        try:
            return await work()
        except Killed:
            kills += 1
            await control.database.execute("UPDATE decklog.cursors SET leased_until = 'epoch'")
            return None

    burnt = True
    while burnt:
        manifest = by_archive(control, isolation, retention={"days": 30})
        manifest = msgspec.structs.replace(manifest, uid=f"uid-{steps}")
        workshop.objects.names.clear()
        assert (await operator().reconcile(manifest, MemoryVault())).ready
        tenant = await fill(control, 12)
        fuse.steps, fuse.after = steps, after
        was, synced = await stored(control, tenant), False
        for _ in range(40):
            status = await surviving(partial(operator().remove, manifest))
            if synced := status is not None and status.synced:
                break
            if await control.database.execute("SELECT 1 FROM decklog.heads WHERE tenant_id = $1", tenant.id):
                was = await stored(control, tenant)
            await stops_apply_everywhere(control)
            for due in await PostgresArchives(service).due(limit=9):
                await surviving(partial(worker().advance, due))
        assert synced
        burnt, fuse.steps, steps = fuse.steps is None, None, steps + 1
        archived = await workshop.archived()
        assert len(archived["events"]) == 12
        assert archived["events"] == was["events"]
        assert [record.seq for record in archived["access"]] == list(range(len(archived["access"])))
        assert await left_in_the_database(control, tenant) == {}
    assert kills >= 12
    await owner.close()


async def test_archived_tenant_keeps_its_records_under_legal_hold_or_retain(control: Control, workshop: Workshop) -> None:
    provisioner, vault, manifest = control.provisioner(), MemoryVault(), by_archive(control)
    await provisioner.reconcile(manifest, vault)
    tenant = await fill(control)
    await stopped(control, provisioner, manifest)
    await workshop.work()
    held = by_archive(control, legalHold=True)
    status = await provisioner.remove(msgspec.structs.replace(held, generation=2), vault)
    assert told(status, SYNCED) == ("False", "LegalHold")
    assert told(status, READY)[0] == "True"
    assert len((await stored(control, tenant))["events"]) == RECORDS
    # It goes on, and is archived with what came meanwhile when the hold is lifted.
    assert isinstance(await control.append(), Appended)
    lifted = msgspec.structs.replace(manifest, generation=3)
    await stopped(control, provisioner, lifted)
    was = await stored(control, tenant)
    assert told(await provisioner.remove(lifted), SYNCED) == ("False", "Archiving")
    workshop.objects.names.clear()
    await workshop.work()
    assert await workshop.archived() == was
    assert (await provisioner.remove(lifted)).synced


@pytest.mark.parametrize("more", [-9, 0, 9], ids=["fewer", "as many", "more"])
async def test_tenant_held_during_its_removal_is_archived_again_with_its_records_of_then(
    control: Control, workshop: Workshop, more: int
) -> None:
    """Killed when the heads were gone, and kept after all: numbers begin anew, and are not taken for those of before."""
    provisioner, vault, manifest = control.provisioner(), MemoryVault(), by_archive(control)
    await provisioner.reconcile(manifest, vault)
    tenant = await fill(control)
    await stopped(control, provisioner, manifest)
    await workshop.work()
    name, _ = await workshop.manifest()
    pool = Pool(control.database.owner_dsn, size_max=CONNECTIONS_MAX, role=None)
    async with PostgresProvisioning(pool).visit("acme") as visit:
        row = await visit.row()
        assert row is not None
        await visit._close(row, name)
    await control.database.execute(f"TRUNCATE {tenant.schema}.records")
    await provisioner.remove(msgspec.structs.replace(by_archive(control, legalHold=True), generation=2), vault)
    store = await control.database.records()
    anew = [prepared(id=f"anew-{number}") for number in range(RECORDS + more)]
    [result] = await store.append([AppendRequest(await control.tenant(), LogName.EVENTS, anew)])
    assert isinstance(result, Appended)
    lifted = msgspec.structs.replace(manifest, generation=3)
    await stopped(control, provisioner, lifted)
    assert told(await provisioner.remove(lifted), SYNCED) == ("False", "Archiving")
    was = await stored(control, tenant)
    assert len(was["events"]) == RECORDS + more
    workshop.objects.names.clear()
    await workshop.work()
    assert await workshop.archived() == was
    assert (await provisioner.remove(lifted)).synced
    await pool.close()


async def test_archiver_skips_tenants_without_deletion_policy_archive(control: Control, workshop: Workshop) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    for name, policy in (("kept", "Retain"), ("goes", "Delete"), ("lives", "Archive"), ("new", "Archive")):
        await provisioner.reconcile(control.manifest(name, uid=f"uid-{name}", deletionPolicy=policy), vault)
    for name, policy in (("kept", "Retain"), ("goes", "Delete")):
        await provisioner.remove(control.manifest(name, uid=f"uid-{name}", deletionPolicy=policy))
    await stops_apply_everywhere(control)
    # Not every process has heard of this one yet.
    await provisioner.remove(control.manifest("new", uid="uid-new", deletionPolicy="Archive"))
    archiver = await workshop.archiver()
    assert await archiver.due(limit=9) == []
    await workshop.work()
    assert workshop.objects.names == [MARKER]


async def test_archiver_gives_small_tenants_a_turn_before_a_large_one_ends(control: Control, workshop: Workshop) -> None:
    provisioner, vault = control.provisioner(), MemoryVault()
    for name in ("large", "small"):
        manifest = control.manifest(name, uid=f"uid-{name}", deletionPolicy="Archive")
        await provisioner.reconcile(manifest, vault)
        await fill(control, 150 if name == "large" else 2, name)
        await provisioner.remove(manifest)
    await stops_apply_everywhere(control)
    rounds = Rounds(await workshop.archiver())
    assert await rounds.turn() is Turn.MORE
    assert any(name.startswith("small/uid-small/manifest-") for name in workshop.objects.names)
    assert not any(name.startswith("large/uid-large/manifest-") for name in workshop.objects.names)
    await workshop.work()
    assert any(name.startswith("large/uid-large/manifest-") for name in workshop.objects.names)


async def test_archiver_locks_objects_for_the_archive_days_in_a_bucket_with_object_lock(
    control: Control, s3_server: S3Server
) -> None:
    provisioner, manifest = control.provisioner(), by_archive(control, retention={"days": 30, "archiveDays": 3})
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control)
    async with bucket(s3_server, lock=True) as name:
        objects = S3Objects(archive_settings(s3_server, name, prefix="audit"))
        workshop = Workshop(control, objects)
        await workshop.work()
        status = await provisioner.reconcile(manifest, MemoryVault())
        assert "locked there for 3 days" in status.condition(ARCHIVE).message
        await stopped(control, provisioner, manifest)
        was = await stored(control, tenant)
        await workshop.work()
        assert await workshop.archived() == was
        _, written = await workshop.manifest()
        assert written.keep_until
        for each in workshop.objects.names:
            if each != MARKER:
                told_ = await asyncio.to_thread(objects._client.head_object, Bucket=name, Key=f"audit/{each}")
                assert told_["ObjectLockMode"] == "GOVERNANCE"
        assert (await provisioner.remove(manifest)).synced
        await objects.close()


async def test_archiver_rejects_a_log_with_a_gap(control: Control, workshop: Workshop) -> None:
    provisioner, manifest = control.provisioner(), by_archive(control)
    await provisioner.reconcile(manifest, MemoryVault())
    tenant = await fill(control)
    await control.database.execute(f"DELETE FROM {tenant.schema}.records WHERE log = 0 AND seq = 10")
    await stopped(control, provisioner, manifest)
    archiver = await workshop.archiver()
    [due] = await archiver.due(limit=9)
    with pytest.raises(DecklogError, match="has no record 10"):
        await archiver.advance(due)
    assert told(await provisioner.remove(manifest), SYNCED)[0] == "False"
