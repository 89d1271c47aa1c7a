"""The Postman collection and the `.http` file against `decklog dev`: every request of them succeeds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from decklog.api.app import openapi_document
from tests.senders.conftest import Node
from tests.senders.http_files import run
from tests.support.dev import ROOT, Dev
from tools.collection import LEFT_OUT

COLLECTIONS = ROOT / "clients/collections"


@pytest.fixture
def variables(dev: Dev) -> dict[str, str]:
    """The variables of both files. Two records were refused, so there are some to read, to replay and to delete."""
    with dev.client() as client:
        for _ in range(2):
            assert client.post("/api/v1/logs", json={"action": "without an actor"}).status_code == 422
        deadline = time.monotonic() + 30
        while len(client.get("/api/v1/rejected").json()["items"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    content = dev.content
    return {"url": content["url"], "key": content["tenants"]["acme"]["admin"], "platform_key": content["platform"]["key"]}


def operations() -> set[str]:
    methods = [each for path in openapi_document()["paths"].values() for each in path.values() if isinstance(each, dict)]
    return {method["operationId"] for method in methods if "operationId" in method}


def test_requests_of_the_http_file_succeed(variables: dict[str, str]) -> None:
    sent = list(run((COLLECTIONS / "decklog.http").read_text(), variables))
    assert {each.name for each in sent} == operations() - LEFT_OUT
    assert [each for each in sent if each.status not in {200, 201, 204}] == []


def test_requests_of_the_postman_collection_succeed_in_newman(
    packages: Path, node: Node, variables: dict[str, str], tmp_path: Path
) -> None:
    collection: dict[str, Any] = json.loads((COLLECTIONS / "decklog.postman_collection.json").read_text())
    titles = {item["name"] for folder in collection["item"] for item in folder["item"]}
    words = [word for name, value in variables.items() for word in ("--env-var", f"{name}={value}")]
    report = tmp_path / "report.json"
    options: list[str | Path] = ["--reporters", "json", "--reporter-json-export", report, "--timeout-request", "30000"]
    node.run("node", packages / "newman/bin/newman.js", "run", COLLECTIONS / "decklog.postman_collection.json", *words, *options)
    ran = json.loads(report.read_text())["run"]
    answered = {each["item"]["name"] for each in ran["executions"] if each.get("assertions") and "response" in each}
    assert ran["failures"] == []
    assert len(titles) == len(operations() - LEFT_OUT)
    assert titles - answered == set()
