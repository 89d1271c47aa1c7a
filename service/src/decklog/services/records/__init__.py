"""Appending, reading, exporting and streaming records."""
