"""Storage on the real servers: appending, reading, isolation, roles."""
