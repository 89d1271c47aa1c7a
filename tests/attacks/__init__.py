"""Attacks on the running product, and the check that no other tenant is hurt."""
