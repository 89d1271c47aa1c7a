"""Consumers of a log, one module each."""
