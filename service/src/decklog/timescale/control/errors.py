"""What errors of the database mean while provisioning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from decklog.domain.errors import Code, DecklogError
from decklog.timescale.connection import LOST, unavailable


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn database errors into `storage-unavailable`, `misconfigured` or `internal`.

    PostgreSQL's own words about definitions and rights contain no data of tenants, so they are passed on.
    """
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError) as error:
        raise DecklogError(Code.MISCONFIGURED, "The database lacks the tables of this version. Run: decklog migrate.") from error
    except asyncpg.LockNotAvailableError as error:
        raise DecklogError(
            Code.STORAGE_UNAVAILABLE,
            "Another process is working on this tenant, or holds a lock in the database. Try again.",
            retry_after=5,
        ) from error
    except LOST as error:
        raise unavailable(error) from error
    except asyncpg.PostgresError as error:
        raise DecklogError(
            Code.INTERNAL, f"PostgreSQL refused ({error.sqlstate}): {str(error.args[0] if error.args else '')[:200]}."
        ) from error
