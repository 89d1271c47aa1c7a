"""Audit records: their shape, their canonical bytes, their receipts and their wire forms."""
