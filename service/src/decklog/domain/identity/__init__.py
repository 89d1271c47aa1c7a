"""Principals, roles and permissions."""
