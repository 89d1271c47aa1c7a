"""Decklog: a multi-tenant audit log. This package is its data plane and the brain of its control plane."""

__version__ = "0.1.0"
