"""The archive format: parts, names and the manifest that lists them."""
