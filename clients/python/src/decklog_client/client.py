"""The client of a program: it records, and a thread sends."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from decklog_client import capturing, identity, lazily
from decklog_client.actions import Function, ResourceOf, decorator
from decklog_client.errors import NotStoredYetError, RefusedError
from decklog_client.making import CallFields, Fields, encoded
from decklog_client.options import Options, options
from decklog_client.scope import current, merged
from decklog_client.sender import Sent, State
from decklog_client.sending import Sending
from decklog_client.spool import Spool

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from decklog_client.options import OptionValues
    from decklog_client.readers import Reader

_clients: set[Decklog] = set()
"""Clients that are not closed."""


class Statistics(msgspec.Struct, frozen=True):
    """Counts of a client since its process began.

    Attributes:
        recorded: Records that `record` took.
        waiting: Those of them that are neither stored nor refused.
        stored: Records that the server stored, those of dead processes among them.
        duplicates: Records that an earlier attempt had stored.
        refused: Records that the server refused, which are in `rejected.ndjson`.
        batches: Requests.
        retries: Pauses before a further attempt.
        spool_bytes: Bytes of the folder.
        adopted: Files of dead processes that this one took over.
        torn: Records that a crash cut short before `record` had returned.
        damaged: Parts of files that are no records, and are kept in files with the suffix `.damaged`.
        foreign: Files of a format that this version cannot read.
        state: What the sender does. `paused`: somebody must act.
        reason: Why it waits.
    """

    recorded: int
    waiting: int
    stored: int
    duplicates: int
    refused: int
    batches: int
    retries: int
    spool_bytes: int
    adopted: int
    torn: int
    damaged: int
    foreign: int
    state: State
    reason: str


class Decklog:
    """A client with a spool. Threads may share it, and it may be made before a fork. Close it, or use `with`.

    Args:
        url: Address of the API without `/api/v1`.
        key: API key or JWT; or `key_file`, a file with one, which is read for each request.
        spool: Folder of records that are not stored yet, on a disk of this machine. Processes of one tenant may share it.
        values: Options; `decklog_client.Options` describes them.

    Raises:
        ConfigurationError: An argument is malformed.
        SpoolError: The folder cannot be made.
    """

    def __init__(
        self,
        *,
        url: str,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        spool: str | os.PathLike[str],
        **values: Unpack[OptionValues],
    ) -> None:
        self._options = options(values)
        self._url = identity.address(url)
        self._key, self._key_file = key, key_file
        self._credential = identity.Credential(key, None if key_file is None else Path(key_file))
        self._spool = Spool(Path(spool).absolute(), self._options)
        self._begin()
        self._started()
        _clients.add(self)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **values: Unpack[OptionValues]) -> Self:
        """Return the client that DECKLOG_URL, DECKLOG_KEY or DECKLOG_KEY_FILE, and DECKLOG_SPOOL name. Raises ConfigurationError."""
        found = os.environ if environment is None else environment
        return cls(**identity.of_environment(found), spool=identity.required(found, identity.SPOOL), **values)

    @property
    def options(self) -> Options:
        """The options of the client."""
        return self._options

    def __repr__(self) -> str:
        return f"Decklog(url={self._url!r}, spool={str(self._spool.folder)!r})"

    def _begin(self) -> None:
        """Begin without threads, in a new process."""
        self._pid = os.getpid()
        self._starting = threading.Lock()
        self._sending: Sending | None = None

    def forked(self) -> None:
        """Begin in a forked process: the segments and the threads are those of the parent."""
        self._begin()
        self._spool.forked()

    def _started(self) -> Sending | None:
        """Return the threads, started; None where the interpreter is ending and starts none: the records wait on disk."""
        if self._sending is None and not self._spool.closed:
            with self._starting, contextlib.suppress(RuntimeError):
                self._sending = self._sending or Sending(self._spool, self._url, self._credential, self._options)
        return self._sending

    def record(self, action: str, **fields: Unpack[Fields]) -> str:
        """Return the id of a record, once it is on disk. It is sent in the background, under this id in every attempt.

        Fields of `decklog_client.context` complete those that are not given.

        Args:
            action: What was done, as in `order.approve`.
            fields: Fields of the record; `decklog_client.Fields` describes them. An actor is required.

        Raises:
            InvalidRecordError: A required field is missing, or a value has no form in JSON.
            RecordTooLargeError: The record has more than `record_bytes`.
            SpoolFullError: There is no room, with `when_full="block"` for `full_timeout` seconds.
            SpoolError: The folder cannot be written.
            ClosedError: The client is closed.
        """
        return self._take(action, fields, self._options.full_timeout if self._options.when_full == "block" else 0.0)

    def record_now(self, action: str, **fields: Unpack[Fields]) -> str:
        """Return the id of a record as `record` does, but raise SpoolFullError at once where there is no room."""
        return self._take(action, fields, 0.0)

    def _take(self, action: str, fields: Mapping[str, Any], wait: float) -> str:
        shared = current()
        found = {**fields, "action": action} if not shared else {**merged(shared, fields), "action": action}
        name, data = encoded(found, bytes_max=self._options.record_bytes)
        if not capturing.taken(data):
            if os.getpid() != self._pid:  # forked by a program that runs no hooks of Python
                self.forked()
            sending = self._started()
            if sending is not None and sending.sender.is_current:  # in `on_rejected`: only this thread makes room
                wait = 0.0
            self._spool.append(data, wait=wait)
        return name

    def action(self, name: str, *, resource: ResourceOf = None, **fields: Unpack[CallFields]) -> Callable[[Function], Function]:
        """Return a decorator that records each call of a function, after it has ended, with its outcome.

        The outcome is `success`, `denied` for a PermissionError, and `failure` for any other exception, whose type is in
        `metadata.error`. The exception goes on. Functions with `async def` are decorated alike.

        Args:
            name: The action.
            resource: The resource, or a function of the call's arguments that returns it.
            fields: Further fields.
        """
        return decorator(self.record, name, resource, fields)

    def commit(self, timeout: float = 30.0) -> None:
        """Return once the server has stored everything that this process recorded before the call.

        Raises:
            NotStoredYetError: `timeout` seconds have passed. The records stay in the spool, and are sent later.
            RefusedError: The server refused some of these records. Each is reported by one `commit`.
        """
        number = self._spool.counts.recorded
        sending = self._started()
        self._spool.hurry()
        if not self._spool.wait_settled(number, timeout):
            now = self.stats()
            left = number - self._spool.counts.settled
            raise NotStoredYetError(
                f"{left} records are not stored after {timeout:g} seconds ({now.state}: {now.reason or 'busy'})."
            )
        if sending is not None and (refusals := sending.sender.take_refusals(number)):
            raise RefusedError(refusals)

    def reader(self) -> Reader:
        """Return a reader of the same server with the same credential, for `search`, `tail` and `export`. Close it."""
        made: Reader = lazily.readers().Reader(
            url=self._url, key=self._key, key_file=self._key_file, ssl_context=self._options.ssl_context
        )
        return made

    def stats(self) -> Statistics:
        """Return what this client did since its process began."""
        counts, sent = self._spool.counts, Sent() if self._sending is None else self._sending.sender.sent
        return Statistics(
            recorded=counts.recorded,
            waiting=counts.recorded - counts.settled,
            stored=sent.stored,
            duplicates=sent.duplicates,
            refused=sent.refused,
            batches=sent.batches,
            retries=sent.retries,
            spool_bytes=self._spool.size,
            adopted=counts.adopted,
            torn=counts.torn,
            damaged=counts.damaged,
            foreign=len(self._spool.foreign),
            state=sent.state,
            reason=sent.reason,
        )

    def close(self, timeout: float = 5.0) -> bool:
        """Take no further record, and return whether all of them are stored within `timeout` seconds. The rest stays on disk."""
        self._spool.refuse()
        _clients.discard(self)
        done = not self._spool.waiting if self._sending is None else self._sending.close(timeout)
        self._spool.close()
        return done

    def exit(self) -> None:
        """Close the client of a program that ends, within `exit_timeout`."""
        self.close(self._options.exit_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def close_all() -> None:
    """Close all clients of the process, each within its `exit_timeout`, as the end of the program does."""
    for client in list(_clients):
        client.exit()


def _forked() -> None:
    for client in list(_clients):
        client.forked()


atexit.register(close_all)
os.register_at_fork(after_in_child=_forked)
