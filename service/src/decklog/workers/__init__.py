"""Workers: consumers that follow logs, and periodic duties."""
