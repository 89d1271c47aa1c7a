"""Writing and verifying the archive of deleted tenants."""
