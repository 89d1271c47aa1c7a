from decklog.domain.store import *  # noqa: F403 - to be removed: import decklog.domain.store
