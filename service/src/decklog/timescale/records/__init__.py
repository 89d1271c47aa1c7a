"""The data plane in PostgreSQL: appending, reading, cursors and announcements."""
