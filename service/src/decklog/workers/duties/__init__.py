"""Periodic duties of a worker, one module each."""
