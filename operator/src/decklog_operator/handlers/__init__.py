"""Kopf handlers, one module per kind. A handler only calls the code that does the work."""
