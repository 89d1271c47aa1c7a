"""Finding and counting records across the index and the database."""
