"""The commands of `decklog-operator`, imported when they run."""
