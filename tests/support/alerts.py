"""Evaluate the chart's alerts with Prometheus's own engine, minute by minute, over the series of a test."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.charts import Json


def firing(program: Path, rule: Json, series: Sequence[str], minutes: int) -> list[bool]:
    """Return for each minute whether the alert fires: its expression has been true for the duration of the rule."""
    loaded = "load 1m\n" + "".join(f"  {each}\n" for each in series)
    queries = [{"expr": rule["expr"], "minute": minute} for minute in range(minutes)]
    done = subprocess.run(
        [program], input=json.dumps({"series": loaded, "queries": queries}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    number, unit = re.fullmatch(r"(\d+)([mh])", rule["for"]).groups()  # type: ignore[union-attr]
    wanted = int(number) * (60 if unit == "h" else 1) + 1
    found, run = [], 0
    for answer in json.loads(done.stdout):
        run = run + 1 if answer else 0
        found.append(run >= wanted)
    return found
