"""The `decklog` command, also as `python -m decklog`."""

from decklog.cli.program import main

if __name__ == "__main__":
    main()
