"""A client of the HTTP API, and what the command line does with it."""
