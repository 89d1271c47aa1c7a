"""The board: its files, its sources, and its pages in a real browser."""
