"""The chart's routes, limits and timeouts at the edge, as rendered for each kind of edge."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.charts import CHART, Helm, Json, of

DOCS = CHART.parents[1] / "docs"


def test_routes_do_not_expose_health_and_metrics(chart: Helm) -> None:
    objects = chart.render("everything")
    [ingress], [proxy] = of(objects, "Ingress"), of(objects, "HTTPProxy")
    paths = {path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]}
    assert paths == {"/api", "/schema", "/board"}
    assert {path for route in of(objects, "HTTPRoute") for path in matched(route)} == {
        "/api/v1/logs",
        "/api",
        "/schema",
        "/board",
    }
    prefixes = {condition["prefix"] for each in proxy["spec"]["routes"] for condition in each["conditions"]}
    assert all(prefix.startswith(("/api", "/schema", "/board")) for prefix in prefixes)
    [service] = of(objects, "Service", "decklog-api")
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]


def test_board_passes_the_edge_only_where_the_api_serves_it(chart: Helm) -> None:
    objects = chart.render("everything", "--set", "board.enabled=false")
    edges = [*of(objects, "Ingress"), *of(objects, "HTTPProxy"), *of(objects, "HTTPRoute")]
    assert "/board" not in json.dumps([each["spec"] for each in edges])
    [deployment] = of(objects, "Deployment", "decklog-api")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "DECKLOG_BOARD_ENABLED", "value": "false"} in container["env"]


def matched(route: Json) -> list[str]:
    """Return the path prefixes of an HTTPRoute."""
    return [match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]]


def limited(proxy: Json) -> dict[str, Json]:
    """Return the limit of each prefix of an HTTPProxy. The limit of the host applies to all routes without their own."""
    host = proxy["spec"]["virtualhost"]["rateLimitPolicy"]
    return {route["conditions"][0]["prefix"]: route.get("rateLimitPolicy", host) for route in proxy["spec"]["routes"]}


def test_contour_has_local_limits_for_log_routes_and_other_routes(chart: Helm) -> None:
    def local(requests: int, retry_after: str) -> Json:
        told = [{"name": "Retry-After", "value": retry_after}]
        return {"local": {"requests": requests, "unit": "minute", "responseStatusCode": 429, "responseHeadersToAdd": told}}

    def limits(values: str, *words: str) -> dict[str, Json]:
        objects = chart.render(values, *words)
        assert of(objects, "ConfigMap", "decklog-api-limits") == []
        [proxy] = of(objects, "HTTPProxy")
        assert sum("rateLimitPolicy" in route for route in proxy["spec"]["routes"]) == 1
        return limited(proxy)

    logs, others = local(10_000, "6"), local(100, "6")
    assert limits("edge") == {"/api/v1/logs": logs, "/api": others, "/schema": others, "/board": others}
    logs, others = local(60_000, "1"), local(1_000, "1")
    assert limits("everything", "--set", "httpProxy.perClient.enabled=false") == {
        "/api/v1/logs": logs,
        "/api": others,
        "/schema": others,
        "/board": others,
    }


def test_contour_descriptors_match_the_rate_limit_service(chart: Helm) -> None:
    objects = chart.render("everything", release="audit", namespace="place")
    [proxy], [limits] = of(objects, "HTTPProxy"), of(objects, "ConfigMap", "audit-decklog-api-limits")
    asked = {}
    for prefix, policy in limited(proxy).items():
        assert policy.keys() == {"global"}
        [descriptor] = policy["global"]["descriptors"]
        word, client = descriptor["entries"]
        assert client == {"remoteAddress": {}}
        asked[prefix] = (word["genericKey"]["key"], word["genericKey"]["value"])
    [text] = limits["data"].values()
    known = yaml.safe_load(text)
    assert known["domain"] == "edge"
    numbers = {}
    for descriptor in known["descriptors"]:
        [client] = descriptor["descriptors"]
        assert client["key"] == "remote_address"
        limit = client["rate_limit"]
        numbers[descriptor["key"], descriptor["value"]] = (limit["requests_per_unit"], limit["unit"])
    assert {prefix: numbers[words] for prefix, words in asked.items()} == {
        "/api/v1/logs": (1_000, "second"),  # because the requests of a minute may arrive at once
        "/api": (1_000, "minute"),
        "/schema": (1_000, "minute"),
        "/board": (1_000, "minute"),
    }


PER_MINUTE, PER_SECOND = "Minute", "Second"


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        ("everything", "Local", ((1_000, PER_SECOND), (1_000, PER_MINUTE), "1")),
        ("edge", "Global", ((167, PER_SECOND), (100, PER_MINUTE), "6")),
    ],
)
def test_envoy_gateway_limits_ipv4_and_ipv6_clients_per_route_group(
    chart: Helm, values: str, kind: str, told: tuple[tuple[int, str], tuple[int, str], str]
) -> None:
    logs, others, retry_after = told
    objects = chart.render(values)
    routes = {each["metadata"]["name"]: matched(each) for each in of(objects, "HTTPRoute")}
    found: dict[str, tuple[int, str]] = {}
    for policy in of(objects, "BackendTrafficPolicy"):
        [target] = policy["spec"]["targetRefs"]
        assert target["kind"] == "HTTPRoute"
        limit = policy["spec"]["rateLimit"]
        assert limit["type"] == kind
        rules = limit[kind.lower()]["rules"]
        sources = [rule["clientSelectors"][0]["sourceCIDR"] for rule in rules]
        assert sources == [{"type": "Distinct", "value": "0.0.0.0/0"}, {"type": "Distinct", "value": "::/0"}]
        assert {rule.get("shared", False) for rule in rules} == {kind == "Global"}
        [limit] = {(rule["limit"]["requests"], rule["limit"]["unit"]) for rule in rules}
        found |= dict.fromkeys(routes.pop(target["name"]), limit)
        [refusal] = policy["spec"]["responseOverride"]
        assert (refusal["source"], refusal["match"]["statusCodes"]) == ("Local", [{"type": "Value", "value": 429}])
        assert refusal["response"] == {"header": {"set": [{"name": "Retry-After", "value": retry_after}]}}
        # Buffering a body would block a stream, which has no end.
        assert ("requestBuffer" in policy["spec"]) == (limit == others)
    assert routes == {}
    assert found == {"/api/v1/logs": logs, "/api": others, "/schema": others, "/board": others}


def test_edge_ends_streams_and_exports_only_on_silence(chart: Helm) -> None:
    objects = chart.render("everything", "--set", "edge.responseTimeout=90s,edge.idleTimeout=7m")
    [proxy] = of(objects, "HTTPProxy")
    routes = {route["conditions"][0]["prefix"]: route for route in proxy["spec"]["routes"]}
    assert {prefix: route["timeoutPolicy"] for prefix, route in routes.items()} == {
        "/api/v1/logs": {"response": "infinity", "idle": "7m"},
        "/api": {"response": "90s", "idle": "7m"},
        "/schema": {"response": "90s", "idle": "7m"},
        "/board": {"response": "90s", "idle": "7m"},
    }
    assert [prefix for prefix, route in routes.items() if route.get("enableWebsockets")] == ["/api/v1/logs"]
    for route in of(objects, "HTTPRoute"):
        [rule] = route["spec"]["rules"]
        assert rule["timeouts"] == {"request": "0s" if matched(route) == ["/api/v1/logs"] else "90s"}
    for policy in of(objects, "BackendTrafficPolicy"):
        assert policy["spec"]["timeout"] == {"http": {"streamIdleTimeout": "7m"}}


def test_readme_values_for_other_ingress_controllers_are_valid(chart: Helm, tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "guides/install.md").read_text(), re.MULTILINE | re.DOTALL)
    given = [block for block in blocks if yaml.safe_load(block).keys() <= {"ingress", "extraManifests"}]
    assert len(given) == 2
    for block in given:
        (tmp_path / "given.yaml").write_text(block)
        objects = chart.render("minimal", "-f", str(tmp_path / "given.yaml"))
        [logs], [others] = of(objects, "Ingress", "decklog-api-logs"), of(objects, "Ingress", "decklog-api")
        assert logs["metadata"]["annotations"] != others["metadata"]["annotations"]
        for middleware in of(objects, "Middleware"):
            place, name = middleware["metadata"]["namespace"], middleware["metadata"]["name"]
            told = json.dumps([logs["metadata"]["annotations"], others["metadata"]["annotations"]])
            assert f"{place}-{name}@kubernetescrd" in told


def test_ingress_of_log_routes_has_own_annotations_and_one_certificate_request(
    chart: Helm,
) -> None:
    objects = chart.render("edge")
    [logs], [others] = of(objects, "Ingress", "decklog-api-logs"), of(objects, "Ingress", "decklog-api")
    found = {
        each["metadata"]["name"]: [path["path"] for path in each["spec"]["rules"][0]["http"]["paths"]] for each in (logs, others)
    }
    assert found == {"decklog-api-logs": ["/api/v1/logs"], "decklog-api": ["/api", "/schema", "/board"]}
    shared = {"haproxy.org/rate-limit-period": "1m", "haproxy.org/rate-limit-status-code": "429"}
    assert logs["metadata"]["annotations"] == {**shared, "haproxy.org/rate-limit-requests": "10000"}
    assert others["metadata"]["annotations"] == {
        **shared, "haproxy.org/rate-limit-requests": "100", "cert-manager.io/issuer": "private",
    }  # fmt: skip
    assert logs["spec"]["tls"] == others["spec"]["tls"] == [{"secretName": "decklog-api-tls", "hosts": ["audit.example.org"]}]
