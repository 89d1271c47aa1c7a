"""Where Kopf enters: one module per kind, each handler a line or two."""
