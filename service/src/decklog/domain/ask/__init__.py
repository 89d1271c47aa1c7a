"""Questions in plain words: what they are understood as. No I/O."""
