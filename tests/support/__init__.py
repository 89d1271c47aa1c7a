"""Test doubles, databases, strategies and processes that several test folders share."""
