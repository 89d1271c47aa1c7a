"""`decklog dev` as a process, in its own folder; and `decklog` as a command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
READY_SECONDS_MAX = 60.0
EXAMPLES = ROOT / "manifests" / "examples"


def decklog(*words: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `decklog` in the repository with these settings and no others, and without contexts of the user."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
    environment["XDG_CONFIG_HOME"] = str(ROOT / ".no-config")
    return subprocess.run(
        [sys.executable, "-m", "decklog", *words],
        cwd=ROOT,
        env={**environment, **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class Dev:
    """A `decklog dev` that can be started, stopped and killed repeatedly; its folder stays."""

    def __init__(self, folder: Path, *, manifests: Path = EXAMPLES) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "dev.log"
        self._manifests = manifests
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_")}
        argv = [sys.executable, "-m", "decklog", "dev", "--port", "0", "--data-dir", str(self.data), "--ready-file", str(ready)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, "--manifests", str(self._manifests), *words],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not ready.exists():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "dev.json").read_text())
        return found

    def client(self, tenant: str = "acme", role: str = "admin") -> httpx.Client:
        key = self.content["platform"]["key"] if tenant == "platform" else self.content["tenants"][tenant][role]
        return httpx.Client(base_url=self.content["url"], headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def forget(self, tenant: str, role: str) -> None:
        """Remove a key from the file of keys. The process must not run."""
        content = self.content
        del content["tenants"][tenant][role]
        (self.data / "dev.json").write_text(json.dumps(content))

    def signal(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=60)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGINT)

    def processes(self) -> list[str]:
        """Return the command lines of processes that name this folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.data) in line:
                found.append(line)
        return found
