"""The spool: what `append` returned for is read back in order and once, through crashes, full disks and other processes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decklog_client import ClosedError, Options, SpoolError, SpoolFullError, frames
from decklog_client.segment import Segment
from decklog_client.spool import Spool

SMALL = Options(segment_bytes=120, batch_bytes=100, batch_records=3, spool_bytes=100_000)
"""Segments of a few records, so that a short sequence fills several."""


def drained(spool: Spool) -> list[bytes]:
    """Settle and return everything in the folder that no other process holds."""
    spool.adopt()
    found = []
    while spool.waiting:
        batch = spool.next_batch(3)
        if batch is not None:
            found += batch.records
            spool.settle(batch)
    return found


def crash(spool: Spool) -> None:
    """Release the files as the end of a process does: nothing is written, and nothing is deleted."""
    spool.forked()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


STEPS = st.lists(st.one_of(st.integers(1, 60), st.just("settle"), st.just("crash")), max_size=14)


@given(STEPS, st.data())
def test_spool_returns_a_prefix_of_the_records_and_none_twice_after_a_cut_at_any_byte(
    steps: list[int | str], data: st.DataObject
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="decklog-spool-"))
    try:
        spool = Spool(folder, SMALL)
        appended: list[bytes] = []
        settled: list[bytes] = []
        for step in steps:
            if isinstance(step, int):
                appended.append(f"{len(appended):04d}".encode().ljust(step + 4, b"."))
                spool.append(appended[-1], wait=0)
            elif step == "crash":
                crash(spool)
                spool = Spool(folder, SMALL)
                spool.adopt()
            elif (batch := spool.next_batch(3)) is not None:
                settled += batch.records
                spool.settle(batch)
        crash(spool)
        lost = 0
        if found := files(folder):
            lost = data.draw(st.integers(0, found[-1].stat().st_size - frames.HEADER_BYTES))
            os.truncate(found[-1], found[-1].stat().st_size - lost)
        rest = drained(Spool(folder, SMALL))
        assert len(set(settled + rest)) == len(settled + rest)
        assert set(settled + rest) <= set(appended)
        if not lost:
            assert set(settled + rest) == set(appended)
        if "crash" not in steps:  # the segments of several processes have no order among them
            assert settled + rest == appended[: len(settled + rest)]
        assert not files(folder)
    finally:
        shutil.rmtree(folder)


def test_spool_cuts_a_torn_tail_and_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Options())
    for record in (b"one", b"two"):
        spool.append(record, wait=0)
    crash(spool)
    [path] = files(tmp_path)
    with path.open("ab") as file:
        file.write(frames.frame(b"never returned")[:-1])
    later = Spool(tmp_path, Options())
    assert drained(later) == [b"one", b"two"]
    assert (later.counts.torn, later.counts.damaged) == (1, 0)
    assert list(tmp_path.iterdir()) == []


def test_spool_keeps_damaged_bytes_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Options())
    for record in (b"one", b"two", b"three"):
        spool.append(record, wait=0)
    crash(spool)
    [path] = files(tmp_path)
    content = bytearray(path.read_bytes())
    at = content.index(b"two")
    content[at] ^= 1
    path.write_bytes(content)
    later = Spool(tmp_path, Options())
    assert drained(later) == [b"one"]
    assert later.counts.damaged == 1
    [kept] = tmp_path.iterdir()
    assert kept.suffix == ".damaged"
    assert b"three" in kept.read_bytes()


def test_spool_leaves_the_files_of_a_newer_format_alone(tmp_path: Path) -> None:
    newer = frames.MAGIC + bytes([frames.VERSION + 1]) + bytes(100)
    path = tmp_path / "1-1-1.spool"
    path.write_bytes(newer)
    spool = Spool(tmp_path, Options())
    assert drained(spool) == []
    assert spool.foreign == {path.name}
    assert spool.size == len(newer)
    assert path.read_bytes() == newer


def test_spool_removes_files_of_which_only_the_name_survived_a_power_cut(tmp_path: Path) -> None:
    (tmp_path / "1-1-1.spool").write_bytes(b"")
    (tmp_path / "2-1-1.spool").write_bytes(bytes(frames.HEADER_BYTES))
    spool = Spool(tmp_path, Options())
    assert drained(spool) == []
    assert (list(tmp_path.iterdir()), spool.foreign) == ([], frozenset())


def test_spool_removes_files_that_a_process_began_and_did_not_finish(tmp_path: Path) -> None:
    (tmp_path / "1-1-1.new").write_bytes(b"deck")
    Spool(tmp_path, Options()).adopt()
    assert list(tmp_path.iterdir()) == []


def test_spool_takes_no_file_of_a_living_process(tmp_path: Path) -> None:
    first, second = Spool(tmp_path, Options()), Spool(tmp_path, Options())
    first.append(b"one", wait=0)
    second.append(b"two", wait=0)
    assert drained(second) == [b"two"]
    crash(first)
    assert drained(second) == [b"one"]
    assert second.counts.adopted == 1


def test_spool_of_a_fork_has_files_of_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Options())
    spool.append(b"parent", wait=0)
    pid = os.fork()
    if pid == 0:
        spool.forked()
        spool.append(b"child", wait=0)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    spool.append(b"parent again", wait=0)
    assert drained(spool) == [b"parent", b"parent again", b"child"]


def test_spool_with_raise_refuses_what_exceeds_its_bytes_and_takes_it_after_a_settlement(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Options(spool_bytes=200, segment_bytes=100))
    taken: list[bytes] = []

    def fill() -> None:
        for number in range(100):
            spool.append(f"{number:030d}".encode(), wait=0)
            taken.append(f"{number:030d}".encode())

    with pytest.raises(SpoolFullError, match="200 bytes are used"):
        fill()
    assert len(taken) == 2
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 200
    assert drained(spool) == taken
    spool.append(b"again", wait=0)
    assert drained(spool) == [b"again"]


@contextmanager
def file_bytes_max(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_spool_on_a_disk_that_writes_a_part_of_a_record_loses_none(tmp_path: Path) -> None:
    """A file that may not grow takes the first bytes of a record only, as a full disk does."""
    spool = Spool(tmp_path, Options())
    taken = [b"%03d" % number * 10 for number in range(5)]
    for record in taken:
        spool.append(record, wait=0)
    with file_bytes_max(spool.size + 20), pytest.raises(SpoolFullError):
        spool.append(b"x" * 100, wait=0)
    assert [path.stat().st_size for path in files(tmp_path)] == [spool.size]
    spool.append(b"after", wait=0)
    crash(spool)
    assert drained(Spool(tmp_path, Options())) == [*taken, b"after"]


def test_spool_on_a_full_disk_is_full_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Options())
    with file_bytes_max(10), pytest.raises(SpoolFullError) as caught:
        spool.append(b"one", wait=0)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
    spool.append(b"one", wait=0)
    assert drained(spool) == [b"one"]


def test_spool_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SpoolError, match="cannot be made"):
        Spool(file / "spool", Options())
    spool = Spool(tmp_path / "gone", Options())
    (tmp_path / "gone").rmdir()
    with pytest.raises(SpoolError, match="No such file"):
        spool.append(b"one", wait=0)


def test_closed_spool_takes_no_record_and_wakes_those_who_wait(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Options())
    spool.append(b"one", wait=0)
    spool.close()
    with pytest.raises(ClosedError):
        spool.append(b"two", wait=0)
    assert drained(Spool(tmp_path, Options())) == [b"one"]


def test_record_larger_than_a_batch_is_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SMALL)
    large = b"x" * 5_000
    spool.append(b"before", wait=0)
    spool.append(large, wait=0)
    assert drained(spool) == [b"before", large]


@pytest.mark.parametrize("at_the_end", [True, False])
def test_spool_loses_no_record_that_is_appended_while_it_is_read(
    at_the_end: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, Options())
    spool.append(b"one", wait=0)
    read, late = Segment.read, [b"two", b"three"]

    def interrupted(segment: Segment, size: int, offset: int) -> bytes:
        data = read(segment, size, offset)
        if late and bool(data) is not at_the_end:
            spool.append(late.pop(0), wait=0)
        return data

    monkeypatch.setattr(Segment, "read", interrupted)
    for _ in range(6):
        if (batch := spool.next_batch(1)) is not None:
            spool.settle(batch)
    for record in late:
        spool.append(record, wait=0)
    late.clear()
    drained(spool)
    assert (spool.counts.recorded, spool.counts.settled) == (3, 3)
    assert (spool.counts.torn, spool.counts.damaged) == (0, 0)


def test_bytes_that_the_disk_changed_under_a_living_process_are_kept_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Options())
    spool.append(b"one", wait=0)
    spool.append(b"two", wait=0)
    [path] = files(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"two", b"owt"))
    assert drained(spool) == [b"one"]
    spool.append(b"three", wait=0)
    assert drained(spool) == [b"three"]
    assert spool.counts.damaged == 1
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".spool"] == [".damaged"]


def test_sync_covers_what_was_appended(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Options(fsync="always"))
    spool.append(b"one", wait=0)
    assert not any(segment.unsynced for segment in spool.segments())
    [segment] = spool.segments()
    drained(spool)
    spool.pressed = True
    spool.reclaim()
    segment.sync()  # the sender may have deleted the file before the caller of `append` syncs it
    lazy = Spool(tmp_path, Options(fsync="interval"))
    lazy.append(b"one", wait=0)
    assert any(segment.unsynced for segment in lazy.segments())
    lazy.sync()
    assert not any(segment.unsynced for segment in lazy.segments())


WRITER = """
import sys
from pathlib import Path
from decklog_client import Options
from decklog_client.segment import Segment
from decklog_client.spool import Spool
spool = Spool(Path(sys.argv[1]), Options(segment_bytes=20_000))
for number in range(1_000_000):
    spool.append(b"%d-%d" % (int(sys.argv[2]), number), wait=0)
    print(number, flush=True)
"""


def test_spool_has_what_killed_processes_were_told_and_at_most_one_record_more(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(name)], stdout=subprocess.PIPE, text=True)
        for name in range(2)
    ]
    told = {}
    for name, process in enumerate(processes):
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 2_000:
                process.send_signal(signal.SIGKILL)
                break
        rest = process.stdout.read().split()
        told[name] = int(rest[-1]) if rest else 2_000
        process.wait()
    found = drained(Spool(tmp_path, Options()))
    assert len(set(found)) == len(found)
    for name, last in told.items():
        mine = [int(record.split(b"-")[1]) for record in found if record.startswith(b"%d-" % name)]
        assert mine == list(range(len(mine)))
        assert len(mine) - 1 - last in (0, 1)
