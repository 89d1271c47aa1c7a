"""The command line: one module per verb, loaded by name when the verb is used, so that `decklog --help` loads none of them."""
