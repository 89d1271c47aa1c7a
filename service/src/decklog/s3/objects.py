"""Objects of an archive in an S3 bucket. boto3's calls block, so they run in threads.

S3 verifies the SHA-256 of each object that it receives. In a bucket with Object Lock an object is locked until its date; in any
other the date is only metadata, which prevents no deletion.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from decklog.aws import client
from decklog.domain.archive.manifest import ArchiveError
from decklog.domain.errors import Code
from decklog.domain.log import rfc3339_seconds
from decklog.settings import Archive

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import PutObjectRequestTypeDef

CALL_SECONDS_MAX = 20
"""Seconds until an answer begins, and between two pieces of it."""
KEEP_UNTIL = "decklog-keep-until"
"""Name of the metadata that holds the date, in RFC 3339, until which an object is kept."""

_DENIED_STATUS = (401, 403)
_DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
"""A denial is recognised by code or by status, because servers differ in both."""
_ABSENT = frozenset({"NoSuchKey", "NotFound", "404"})
_NO_LOCK = frozenset({"ObjectLockConfigurationNotFoundError", "ObjectLockConfigurationNotFound", "NoSuchObjectLockConfiguration"})
_Result = TypeVar("_Result")


class S3Objects:
    """`ArchiveObjects` in a bucket, below a prefix; see the protocol for what each method promises."""

    def __init__(self, settings: Archive, *, bucket: str = "", prefix: str | None = None) -> None:
        self._bucket = bucket or settings.bucket
        self._prefix = settings.prefix if prefix is None else prefix
        self._mode = settings.lock_mode.upper()
        self._client = _connect(settings)
        self._locks: bool | None = None

    @property
    def place(self) -> str:
        """Return `s3://<bucket>/<prefix>`."""
        return "/".join(filter(None, (f"s3://{self._bucket}", self._prefix)))

    async def put(self, name: str, content: bytes, *, keep_until: datetime | None = None) -> None:
        """See the protocol."""
        locked = keep_until is not None and await self.locked()
        await self._call(name, "s3:PutObject", lambda: self._put(name, content, keep_until, locked=locked))

    async def get(self, name: str, *, bytes_max: int) -> bytes:
        """See the protocol."""
        content = await self._call(name, "s3:GetObject", lambda: self._get(name, bytes_max))
        if len(content) > bytes_max:
            raise ArchiveError("Damaged", f"{self._where(name)} is larger than {bytes_max} bytes.", Code.INTERNAL)
        return content

    async def locked(self) -> bool:
        """See the protocol."""
        # Object Lock can be enabled on a bucket later, but never disabled.
        if not self._locks:
            self._locks = await self._call("", "s3:GetBucketObjectLockConfiguration", self._lock_enabled)
        return self._locks

    async def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    async def _call(self, name: str, right: str, call: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.to_thread(call)
        except ClientError as error:
            told = error.response.get("Error", {}).get("Code", "unknown")
            raise self._refused(name, right, told, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) from error
        except (BotoCoreError, OSError) as error:
            # The text of the error may contain anything, so only its type is shown.
            raise ArchiveError("Unreachable", f"{self.place} cannot be reached ({type(error).__name__}).") from error

    def _refused(self, name: str, right: str, code: str, status: int) -> ArchiveError:
        if code == "NoSuchBucket":
            return ArchiveError("NoBucket", f"There is no bucket {self._bucket!r}. Make it, or set DECKLOG_ARCHIVE_BUCKET.")
        if code in _DENIED or status in _DENIED_STATUS:
            return ArchiveError(
                "AccessDenied", f"The workers may not do {right} in {self.place} ({code}). Give them that right.", Code.FORBIDDEN
            )
        if code in _ABSENT and name:
            return ArchiveError("NotFound", f"There is no {self._where(name)}.", Code.NOT_FOUND)
        return ArchiveError("Failed", f"S3 answered {code} to {right} in {self.place}.")

    def _where(self, name: str) -> str:
        return f"{self.place}/{name}"

    def _key(self, name: str) -> str:
        return "/".join(filter(None, (self._prefix, name)))

    # The methods below run in threads.

    def _put(self, name: str, content: bytes, keep_until: datetime | None, *, locked: bool) -> None:
        request: PutObjectRequestTypeDef = {
            "Bucket": self._bucket,
            "Key": self._key(name),
            "Body": content,
            "ChecksumSHA256": base64.b64encode(hashlib.sha256(content).digest()).decode(),
        }
        if keep_until is not None:
            request["Metadata"] = {KEEP_UNTIL: rfc3339_seconds(keep_until)}
        if keep_until is not None and locked:
            request["ObjectLockMode"] = "COMPLIANCE" if self._mode == "COMPLIANCE" else "GOVERNANCE"
            request["ObjectLockRetainUntilDate"] = keep_until
        self._client.put_object(**request)

    def _get(self, name: str, bytes_max: int) -> bytes:
        with self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"] as body:
            content: bytes = body.read(bytes_max + 1)
        return content

    def _lock_enabled(self) -> bool:
        try:
            told = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _NO_LOCK:
                return False
            raise
        return told.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"


def _connect(settings: Archive) -> S3Client:
    connected: S3Client = client(
        "s3",
        settings,
        connect_timeout=5,
        read_timeout=CALL_SECONDS_MAX,
        connections=2,
        options=Config(
            # A bucket's name is no host name at a custom endpoint.
            s3={"addressing_style": "path" if settings.endpoint_url else "auto"},
            # Decklog sends its own checksum, and compares what it reads itself.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    return connected
