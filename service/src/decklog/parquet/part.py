"""Parts of an archive as Apache Parquet files, with everything that a check of a record needs.

Import this module only when there is something to archive or to check: pyarrow takes much memory.
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
"""Records decoded at once."""
_LEVEL = 3
"""Compression level of zstd; higher ones save little and take long."""

_SCHEMA = pa.schema(
    [
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("received_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("digest", pa.binary(32), nullable=False),
        # The exact text that the digest covers.
        pa.field("content", pa.string(), nullable=False),
    ]
)
_COLUMNS = tuple(_SCHEMA.names)


def encode(about: dict[str, str], records: Sequence[StoredRecord]) -> bytes:
    """Return a Parquet file of these records, in their order.

    The same records give the same bytes with the same version of pyarrow. `about` becomes metadata of the file, each name with the
    prefix `decklog.`.
    """
    columns = {name: [getattr(record, name) for record in records] for name in _COLUMNS}
    schema = _SCHEMA.with_metadata({f"decklog.{name}": value for name, value in about.items()})
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_pydict(columns, schema=schema),
        sink,
        compression="zstd",
        compression_level=_LEVEL,
        # Digests never repeat and contents hardly ever, so a dictionary only costs.
        use_dictionary=False,
        write_statistics=["epoch", "seq", "received_at"],
        store_schema=False,
    )
    return sink.getvalue()


def decode(content: bytes) -> Iterator[StoredRecord]:
    """Yield the records of a file, in its order.

    Raises:
        ArchiveError: `Damaged` if the content is not such a file.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(_COLUMNS)):
            for row in zip(*(batch.column(name).to_pylist() for name in _COLUMNS), strict=True):
                yield StoredRecord(*row)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ArchiveError("Damaged", f"The file cannot be read as Parquet ({type(error).__name__}).", Code.INTERNAL) from error
