"""Values that must not be stored in clear, and how they are masked."""
