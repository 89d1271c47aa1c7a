"""A part of the archive as Apache Parquet: all that is needed to check a record, readable by whatever reads Parquet.

The only home of pyarrow, which takes a lot of memory: it is loaded by whoever archives or checks, when there is something to.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from decklog.domain.archive.manifest import ArchiveError
from decklog.domain.errors import Code
from decklog.domain.records.record import StoredRecord

BATCH_ROWS = 1_000
"""Records that are taken out of a file at once."""
_LEVEL = 3
"""Of zstd: more saves little and takes long."""

_SCHEMA = pa.schema(
    [
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("received_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("digest", pa.binary(32), nullable=False),
        # The exact text that was hashed.
        pa.field("content", pa.string(), nullable=False),
    ]
)
_COLUMNS = tuple(_SCHEMA.names)


def encode(about: dict[str, str], records: Sequence[StoredRecord]) -> bytes:
    """The same records give the same bytes, with the same version of the library."""
    columns = {name: [getattr(record, name) for record in records] for name in _COLUMNS}
    schema = _SCHEMA.with_metadata({f"decklog.{name}": value for name, value in about.items()})
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_pydict(columns, schema=schema),
        sink,
        compression="zstd",
        compression_level=_LEVEL,
        # Every digest is another one, and so is nearly every content.
        use_dictionary=False,
        write_statistics=["epoch", "seq", "received_at"],
        store_schema=False,
    )
    return sink.getvalue()


def decode(content: bytes) -> Iterator[StoredRecord]:
    """The records of a file, in its order. Raises `ArchiveError` where it is no such file."""
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(_COLUMNS)):
            for row in zip(*(batch.column(name).to_pylist() for name in _COLUMNS), strict=True):
                yield StoredRecord(*row)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ArchiveError("Damaged", f"It cannot be read as Parquet ({type(error).__name__}).", Code.INTERNAL) from error
