"""The control plane of a tenant: what is planned, removed and reported. Pure functions."""
