"""Principals, roles, permissions and the rotation of API keys."""
