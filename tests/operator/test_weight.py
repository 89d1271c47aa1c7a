"""The operator's imports bound its memory."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("joserfc", "cryptography", "httpx", "litestar", "pyarrow", "boto3")


def test_operator_imports_nothing_that_only_the_data_plane_needs() -> None:
    program = f"import sys, decklog.assembly.control_plane, decklog_operator.run; print([name for name in {HEAVY} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"
