"""The demo: a generated story in a tenant of its own, so that a new installation has something to look at. Nothing else may use it."""
