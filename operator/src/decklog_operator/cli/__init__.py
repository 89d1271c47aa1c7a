"""The verbs of `decklog-operator`, loaded by name when they are used."""
