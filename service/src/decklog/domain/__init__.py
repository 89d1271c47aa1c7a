"""The nouns of Decklog: plain values and pure functions, with no I/O and no framework."""
