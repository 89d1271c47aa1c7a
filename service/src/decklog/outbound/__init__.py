"""Calls to systems outside of the installation, with every size and time bounded."""
