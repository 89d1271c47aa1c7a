"""Programs for people who work on Decklog: generators of files (`generate`) and the development cluster (`dev`)."""
