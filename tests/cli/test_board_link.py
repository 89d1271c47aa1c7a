"""The link to the board that `decklog dev` prints."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import stamina

from decklog.api.services import ApiServices
from decklog.cli import dev
from decklog.domain.errors import Code, DecklogError
from decklog.files.keys import KeyFile


class Services:
    """Sign-in over a registry that is stale for its first `stale` questions."""

    def __init__(self, code: Code, *, stale: int) -> None:
        self.identity = self.sign_in = self
        self._error = DecklogError(code, "Not now.")
        self._left = stale

    async def authenticate(self, key: str) -> str:
        if self._left:
            self._left -= 1
            raise self._error
        return key

    async def link(self, principals: list[str], _: Any) -> tuple[str, datetime]:
        return "+".join(principals), datetime.now(UTC)


@pytest.fixture(autouse=True)
def _no_pauses() -> Any:
    with stamina.set_testing(True, attempts=5):
        yield


@pytest.fixture
def vault(tmp_path: Path) -> KeyFile:
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"tenants": {"acme": {"admin": "a"}, "demo": {"admin": "d"}}}))
    return KeyFile(path)


async def link(services: Services, vault: KeyFile) -> str:
    return await dev._board_link(cast("ApiServices", services), "http://127.0.0.1:1", vault, first="demo")


async def test_link_waits_for_a_registry_that_is_stale_for_a_moment(vault: KeyFile) -> None:
    assert (await link(Services(Code.REGISTRY_STALE, stale=3), vault)).endswith("link=d+a")


async def test_link_does_not_wait_for_other_failures(vault: KeyFile) -> None:
    with pytest.raises(DecklogError) as error:
        await link(Services(Code.UNAUTHENTICATED, stale=1), vault)
    assert error.value.code is Code.UNAUTHENTICATED
