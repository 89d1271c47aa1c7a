"""End-to-end tests: processes of Decklog over real backends."""
