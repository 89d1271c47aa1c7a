"""Programs of the development cluster and of the compose file; each runs by its path, without an installation."""
