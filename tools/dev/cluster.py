"""Tasks of the Tiltfile's buttons on the cluster of `make kind`: create the example tenants, load records, run the tour.

`python cluster.py tenants|doctor|records|tour`, at the root of the repository. Keys and address go to `.decklog/dev.json`, like those of
`decklog dev`. The API is reached by the port that Tilt forwards.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONTEXT, NAMESPACE = "kind-decklog", "decklog-system"
URL = "http://127.0.0.1:8321"
EXAMPLES = "manifests/examples"
KEYS = Path(".decklog/dev.json")
RECORDS = 1_000
SECONDS_MAX = 300
ROLES = ("writer", "auditor", "admin")

# The operator's pod may create a platform key. `decklog` refuses the operator's own settings.
PLATFORM_KEY = """
import os, sys
environment = {name: value for name, value in os.environ.items() if not name.startswith("DECKLOG_OPERATOR_")}
os.execve(sys.executable, [sys.executable, "-m", "decklog", "platform-key"], environment)
"""


def kubectl(*words: str) -> str:
    """Return the output of kubectl, on this cluster only."""
    return subprocess.run(
        ["kubectl", "--context", CONTEXT, *words], check=True, stdout=subprocess.PIPE, text=True, timeout=SECONDS_MAX + 60
    ).stdout


def tenants() -> None:
    """Apply the examples, wait until they are ready, and write the keys of all tenants and of the platform to the file."""
    print(kubectl("apply", "-f", EXAMPLES), end="")
    print(kubectl("wait", "--for=condition=Ready", "tenant", "--all", f"--timeout={SECONDS_MAX}s"), end="")
    found: dict[str, dict[str, str]] = {}
    for tenant in json.loads(kubectl("get", "tenants", "-o", "json"))["items"]:
        name, place = tenant["metadata"]["name"], tenant["spec"].get("credentials", {}).get("secretNamespace", "default")
        data = json.loads(kubectl("get", "secret", f"{name}-decklog", "-n", place, "-o", "json"))["data"]
        found[name] = {role: base64.b64decode(data[role]).decode() for role in ROLES}
    run = ("exec", "-n", NAMESPACE, "deployment/decklog-operator", "--", "/opt/decklog/bin/python", "-c")
    key = kubectl(*run, PLATFORM_KEY).strip()
    KEYS.parent.mkdir(mode=0o700, exist_ok=True)
    partial = KEYS.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"url": URL, "platform": {"key": key}, "tenants": found}, file, indent=2)
    partial.replace(KEYS)
    print(f"Keys of {len(found)} tenants: {KEYS}")


def kept() -> dict[str, Any]:
    """Return the content of the file of keys."""
    found: dict[str, Any] = json.loads(KEYS.read_text(encoding="utf-8"))
    return found


def doctor() -> None:
    """Run `decklog doctor` with the tenant `minimal`."""
    found = kept()
    variables = {"DECKLOG_URL": found["url"], "DECKLOG_KEY": found["tenants"]["minimal"]["admin"]}
    subprocess.run([ROOT / ".venv/bin/decklog", "doctor"], env={**os.environ, **variables}, check=True, timeout=SECONDS_MAX)


def records() -> None:
    """Append sample records to the tenant `acme`. A second run stores nothing."""
    found = kept()
    actions = ("user.login", "order.approve", "document.read", "document.delete", "role.grant")
    samples = [
        {
            "id": f"sample-{number}",
            "action": actions[number % len(actions)],
            "actor": {"id": ("alice", "bob", "carol")[number % 3], "type": "user"},
            "resource": {"type": "document", "id": str(number % 97)},
            "outcome": "failure" if number % 11 == 0 else "success",
            "source": {"ip": f"192.0.2.{number % 250 + 1}"},
            "metadata": {"amount": number % 500},
        }
        for number in range(RECORDS)
    ]
    request = urllib.request.Request(
        f"{found['url']}/api/v1/logs/bulk",
        json.dumps(samples).encode(),
        {"Authorization": f"Bearer {found['tenants']['acme']['writer']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS_MAX) as response:
        answer = json.load(response)
    print(f"{answer['stored']} stored, {answer['duplicates']} already there, {answer['rejected']} rejected.")


def tour() -> None:
    """Run the README's curl tour as typed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    script = text.partition("<!-- tour: curl -->\n```sh\n")[2].partition("```")[0]
    subprocess.run(["bash", "-eu", "-o", "pipefail"], input=script, text=True, check=True, timeout=SECONDS_MAX)


if __name__ == "__main__":
    {"tenants": tenants, "doctor": doctor, "records": records, "tour": tour}[sys.argv[1]]()
