"""Create passwords, keys and addresses for `docker-compose.yml`, once.

`python make_secrets.py FOLDER [NAME=UID…]` creates a folder for each group of programs; only that group mounts its volume:
`admin` for PostgreSQL and the migration, `owner` for what creates tenants, `service` for the API, `worker` for workers, `archive` for
workers and the S3 server. Existing files stay. Each NAME is a folder that becomes private to that user.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

DATABASE = "timescale:5432/decklog"
READABLE = 0o444
"""Readable by the users of several images; only the programs that mount the volume reach it."""


def made(folder: Path, name: str, value: str = "") -> str:
    """Return the content of the file. A missing file gets this value, or a random one."""
    path, partial = folder / name, folder / f".{name}"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        partial.unlink(missing_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, READABLE), "w", encoding="ascii") as file:
            file.write(value or secrets.token_hex(32))
        partial.rename(path)
    return path.read_text(encoding="ascii")


def main(root: Path, *owned: str) -> None:
    """Create all files below `root`; `owned` has NAME=UID for private folders."""
    for folder, user in (
        ("admin", "postgres"),
        ("owner", "decklog_owner"),
        ("service", "decklog_service"),
        ("worker", "decklog_worker"),
    ):
        password = made(root / folder, "password")
        made(root / folder, "dsn", f"postgresql://{user}:{password}@{DATABASE}")
        made(root / folder, "queue-secret")
    for folder in ("service", "worker"):
        made(root / "owner", f"{folder}-password", made(root / folder, "password"))
    made(root / "service", "fingerprint-key")
    made(root / "archive", "secret-key")
    for each in owned:
        name, _, user = each.partition("=")
        if (root / name).stat().st_uid == os.getuid():  # not yet given away
            (root / name).chmod(0o700)
            os.chown(root / name, int(user), int(user))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
