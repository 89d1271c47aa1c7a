"""The file of keys of an embedded installation."""

from __future__ import annotations

from pathlib import Path

from decklog.domain.identity.access import Role
from decklog.domain.identity.session import IDENTITIES_MAX
from decklog.domain.tenancy.manifest import Manifest
from decklog.domain.tenancy.spec import parse_spec
from decklog.files.keys import KeyFile
from decklog.services.tenancy.vaults import Handout


async def _fill(file: KeyFile, names: list[str]) -> None:
    for name in names:
        keys = {role: f"{role.value} of {name}" for role in (Role.ADMIN, Role.WRITER)}
        await file.write(Manifest(name, f"uid-{name}", 1, parse_spec({"retention": {"days": 30}})), Handout(keys))


async def test_board_keys_name_the_wanted_tenant_first_and_the_platform_last(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "dev.json")
    await _fill(file, ["acme", "demo", "globex"])
    file.set_platform("of the platform")
    assert file.board_keys() == ["admin of acme", "admin of demo", "admin of globex", "of the platform"]
    assert file.board_keys(first="demo") == ["admin of demo", "admin of acme", "admin of globex", "of the platform"]
    assert file.board_keys(first="nobody") == file.board_keys()


async def test_board_keys_are_as_many_as_a_session_holds(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "dev.json")
    await _fill(file, [f"t{number}" for number in range(IDENTITIES_MAX + 5)])
    file.set_platform("of the platform")
    keys = file.board_keys()
    assert len(keys) == IDENTITIES_MAX
    assert keys[-1] == "of the platform"
