"""The rooms that join services and adapters into programs."""
