"""The HTTP API: Litestar routes over the services."""
