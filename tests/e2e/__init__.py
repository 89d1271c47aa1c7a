"""The whole of Decklog, in processes of its own over real backends."""
