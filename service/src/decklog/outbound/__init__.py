"""HTTP calls to systems outside of the installation, with bounded sizes and times."""
