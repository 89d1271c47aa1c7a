"""Adapters over local files: keys, manifests and the archive in a folder."""
