"""The verbs of Decklog, where decisions are made; they know the domain and the protocols beside it, and no library of a backend."""
