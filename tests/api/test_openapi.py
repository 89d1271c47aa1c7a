"""The OpenAPI document is valid and complete, and the API conforms to it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from decklog.api.app import openapi_document
from decklog.api.errors import STATUSES
from decklog.domain.errors import Code
from decklog.domain.identity.access import Role
from decklog.domain.search.fields import PATHS
from decklog.domain.search.query import PARAMETERS
from tests.support.api_world import World, running_world
from tests.support.examples import examples
from tests.support.memory_store import fill
from tests.support.openapi_conformance import closed_document

DOCUMENT = openapi_document()
OPERATIONS = [(path, method, item) for path, items in DOCUMENT["paths"].items() for method, item in items.items()]


def test_document_is_valid_openapi() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_document_contains_every_route() -> None:
    assert {(method.upper(), path) for path, method, _ in OPERATIONS} == {
        ("POST", "/api/v1/logs"),
        ("POST", "/api/v1/logs/bulk"),
        ("GET", "/api/v1/logs"),
        ("GET", "/api/v1/logs/{seq}"),
        ("GET", "/api/v1/logs/export"),
        ("GET", "/api/v1/logs/stats"),
        ("POST", "/api/v1/logs/search"),
        ("POST", "/api/v1/logs/ask"),
        ("GET", "/api/v1/logs/stream"),
        ("POST", "/api/v1/logs/stream/tickets"),
        ("GET", "/api/v1/session"),
        ("DELETE", "/api/v1/session"),
        ("POST", "/api/v1/sessions"),
        ("GET", "/api/v1/sessions"),
        ("DELETE", "/api/v1/sessions/{number}"),
        ("POST", "/api/v1/sessions/links"),
        ("GET", "/api/v1/rejected"),
        ("GET", "/api/v1/rejected/{number}"),
        ("POST", "/api/v1/rejected/{number}/replay"),
        ("DELETE", "/api/v1/rejected/{number}"),
        ("GET", "/api/v1/tenants"),
        ("GET", "/api/v1/searches"),
        ("POST", "/api/v1/searches"),
        ("GET", "/api/v1/searches/{number}"),
        ("PUT", "/api/v1/searches/{number}"),
        ("DELETE", "/api/v1/searches/{number}"),
        ("GET", "/api/v1/conversations"),
        ("GET", "/api/v1/conversations/{number}"),
        ("DELETE", "/api/v1/conversations/{number}"),
        ("GET", "/api/v1/retention"),
        ("GET", "/api/v1/keys"),
        ("POST", "/api/v1/keys"),
        ("DELETE", "/api/v1/keys/{number}"),
        ("POST", "/api/v1/tenants"),
        ("GET", "/api/v1/tenants/{name}"),
        ("POST", "/api/v1/viewer-tokens"),
        ("GET", "/api/v1/whoami"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    }


def test_operation_has_summary_security_and_described_parameters() -> None:
    for path, method, operation in OPERATIONS:
        assert operation["summary"]
        assert operation["operationId"]
        by_cookie: dict[str, list[str]] = {"session": []} if method == "get" else {"session": [], "csrf": []}
        expected = {
            ("post", "/api/v1/sessions"): [{"bearer": []}, {}],
            ("get", "/api/v1/session"): [by_cookie],
            ("delete", "/api/v1/session"): [by_cookie],
        }
        usual = [{"bearer": []}, by_cookie] if path.startswith("/api") else []
        assert operation["security"] == expected.get((method, path), usual)
        assert {"200", "201", "204"} & set(operation["responses"])
        for parameter in operation.get("parameters", ()):
            assert parameter["description"]
    assert len({operation["operationId"] for _, _, operation in OPERATIONS}) == len(OPERATIONS)


def test_filter_is_a_parameter_of_every_route_that_filters() -> None:
    for name in ("", "/export", "/stats", "/stream"):
        names = {parameter["name"] for parameter in DOCUMENT["paths"][f"/api/v1/logs{name}"]["get"]["parameters"]}
        deep = {path.replace(".<path>", "") for path in PATHS if path != "after.<path>"}
        assert {*PARAMETERS, *deep, "after.<path>"} <= names


def test_error_code_has_a_status_and_is_documented_by_an_operation() -> None:
    assert set(STATUSES) == set(Code)
    documented = {
        code
        for _, _, operation in OPERATIONS
        for response in operation["responses"].values()
        for code in response["content"].get("application/problem+json", {}).get("examples", ())
    }
    # A method that no route has is no operation, and a reader that is too slow is disconnected instead of answered.
    assert documented == {code.value for code in Code} - {"method-not-allowed", "reader-too-slow"}


def _examples(node: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield every schema that has an example, with the example."""
    if isinstance(node, dict):
        if "schema" in node and "example" in node:
            yield node["schema"], node["example"]
        if "schema" in node and "examples" in node:
            for example in node["examples"].values():
                yield node["schema"], example["value"]
        for value in node.values():
            yield from _examples(value)
    elif isinstance(node, list):
        for value in node:
            yield from _examples(value)


def test_example_is_valid_against_its_schema() -> None:
    found = list(_examples(DOCUMENT["paths"]))
    assert len(found) > 50
    for schema, example in found:
        validator = jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
        assert list(validator.iter_errors(example)) == [], example


# The running service, held to its document


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    """The API in its own thread, because schemathesis sends blocking requests."""
    ready = threading.Event()
    running: list[tuple[World, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        async with running_world(heartbeat=0.05) as world:
            await fill(world.store, world.tenant("acme"), *({"id": f"e-{n}", "metadata": {"n": n}} for n in range(20)))
            stop = asyncio.Event()
            running.append((world, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(30)
    world, loop, stop = running[0]
    yield world
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)


@schemathesis.serializer("application/x-ndjson")
def as_lines(context: Any, value: Any) -> bytes:
    """Send NDJSON as the text that schemathesis generates."""
    return str(value).encode("utf-8", "replace")


schema = schemathesis.openapi.from_dict(closed_document())


@schema.exclude(path_regex="stream").parametrize()
@settings(max_examples=examples(20), deadline=None, suppress_health_check=list(HealthCheck))
def test_api_conforms_to_the_document(case: Any, served: World) -> None:
    platform = case.path.startswith("/api/v1/tenants")
    key = served.keys[(None, Role.PLATFORM) if platform else ("acme", Role.ADMIN)]
    case.call_and_validate(
        base_url=served.url,
        headers={"Authorization": f"Bearer {key}"},
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
        ],
        timeout=120,  # the largest bulk is long under coverage
    )


# The page


async def test_reference_page_loads_only_its_own_files(world: World) -> None:
    async with world.client() as client:
        page = await client.get("/schema")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)", page.text)
        assert not re.search(r"\sstyle=|\son\w+=|javascript:", page.text)
        files = re.findall(r'(?:src|href)="([^"]+)"', page.text.replace('href="data:,"', ""))
        assert {"/schema/page.js", "/schema/page.css", "/schema/openapi.json"} <= set(files)
        for file in files:
            assert re.match("/[^/]", file)
            response = await client.get(file)
            assert response.status_code == 200
            assert not re.search(r"https?://(?!decklog\.dev)", response.text)
        assert (await client.get("/schema/openapi.json")).json() == DOCUMENT
