"""PostgreSQL and TimescaleDB: where records, heads, cursors and the registry live. The only home of asyncpg and Piccolo."""
