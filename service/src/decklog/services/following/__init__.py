"""Consumers that follow a log by cursor, and the wake-ups that prompt them."""
