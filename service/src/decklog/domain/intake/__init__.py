"""Mappings of other systems' audit events to records."""
