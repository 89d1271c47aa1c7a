"""Queries over records and the terms that every search engine evaluates."""
