"""The chart renders only what the programs and the API server accept and what its values say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
import yaml
from prometheus_client import REGISTRY

from decklog import settings, tracing_settings
from decklog.api import certificates
from decklog.api import metrics as api_metrics
from decklog.assembly import api, control_plane, worker
from decklog_operator import manifests
from decklog_operator import metrics as operator_metrics
from decklog_operator import settings as operator_settings
from tests.support.charts import CHART, MATRIX, Helm, Json, RefusedError, environment, of, pods, secret_files
from tests.support.compose import SERVICES
from tools import chart as chart_files

THEY_REGISTER_THEIR_METRICS = (control_plane, api, worker, api_metrics, certificates)

DOCS = CHART.parents[1] / "docs"
LEFT_TO_EXTRA_ENV = {
    "DECKLOG_IDENTITY_ISSUERS_FILE": "made by identity.issuers",
    "DECKLOG_OPERATOR_LEASE_NAMESPACE": "the pod's own is right",
    "DECKLOG_OPERATOR_RETRY_MAX_SECONDS": "for tests and rare cases",
    "DECKLOG_OPERATOR_PASS_MAX_SECONDS": "for tests and rare cases",
    "DECKLOG_OPERATOR_WATCH_SILENCE_MAX_SECONDS": "for tests and rare cases",
    "DECKLOG_ARCHIVE_FOLDER": "for one machine",
}


@pytest.mark.parametrize("values", MATRIX)
def test_helm_lint_passes(chart: Helm, values: str) -> None:
    assert "0 chart(s) failed" in chart("lint", "--strict", CHART, "-f", CHART / f"ci/{values}.yaml")


@pytest.mark.parametrize("values", MATRIX)
def test_programs_accept_every_variable_of_the_chart(chart: Helm, values: str) -> None:
    for component, pod in pods(chart.render(values)).items():
        given = environment(pod)
        own, common = operator_settings.split(given)
        loaded = settings.load(common)
        if component == "operator":
            assert operator_settings.load(own).health_host == "0.0.0.0"
        else:
            assert own == {}
        if component in ("api", "worker"):
            assert loaded.database.dsn
            assert loaded.identity.fingerprint_key
            assert loaded.api.host == "0.0.0.0"


@pytest.mark.parametrize("values", MATRIX)
def test_secrets_reach_programs_as_files_of_the_keys_that_they_need(chart: Helm, values: str) -> None:
    for pod in pods(chart.render(values)).values():
        if pod["spec"]["containers"][0]["image"].split(":")[0] not in ("decklog", "decklog-operator"):
            continue  # a backend of dev.enabled
        variables = pod["spec"]["containers"][0].get("env", [])
        assert {each["name"] for each in variables if "valueFrom" in each} <= {"OTEL_EXPORTER_OTLP_HEADERS"}
        named = {each["value"] for each in variables if each.get("value", "").startswith("/secrets/")}
        assert secret_files(pod).keys() == named


def test_every_setting_has_a_value_or_an_exemption(chart: Helm) -> None:
    told = {name for values in MATRIX for pod in pods(chart.render(values)).values() for name in environment(pod)}
    known = {*settings.variables(), *operator_settings.variables()}
    assert known - told - LEFT_TO_EXTRA_ENV.keys() == set()


def test_api_with_a_certificate_serves_https_everywhere(chart: Helm) -> None:
    tls = ("--set", "api.tls.existingSecret=api-tls", "--set", "api.tls.keys.ca=ca.crt", "--set", "operator.apiUrl=")
    objects = chart.render("everything", *tls)
    api = pods(objects)["api"]
    given = environment(api)
    mounts = {each["name"]: each["mountPath"] for each in api["spec"]["containers"][0]["volumeMounts"]}
    assert given["DECKLOG_API_TLS_CERTIFICATE_FILE"] == mounts["tls"] + "/tls.crt"
    assert given["DECKLOG_API_TLS_KEY_FILE"] == mounts["tls"] + "/tls.key"
    assert {"name": "tls", "secret": {"secretName": "api-tls"}} in api["spec"]["volumes"]
    # A volume with a subPath would keep the first certificate for ever.
    assert not any("subPath" in each for each in api["spec"]["containers"][0]["volumeMounts"])
    [service] = of(objects, "Service", "decklog-api")
    [port] = service["spec"]["ports"]
    assert (port["name"], port["targetPort"], port["appProtocol"]) == ("https", "https", "https")
    assert "https" in {each["name"] for each in api["spec"]["containers"][0]["ports"]}
    named = {str(each) for policy in of(objects, "NetworkPolicy") for each in re.findall(r"'port': '(https?)'", str(policy))}
    assert named == {"https"}
    url = "https://decklog-api.decklog-system.svc:8321"
    assert environment(pods(objects)["operator"])["DECKLOG_OPERATOR_API_URL"] == url
    assert environment(pods(objects)["doctor"])["DECKLOG_URL"] == url
    assert environment(pods(objects)["doctor"])["SSL_CERT_FILE"] == "/etc/decklog-tls/ca.crt"
    for ingress in of(objects, "Ingress"):
        assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"
        assert "'name': 'https'" in str(ingress["spec"]["rules"])
    [proxy] = of(objects, "HTTPProxy")
    assert {service["protocol"] for route in proxy["spec"]["routes"] for service in route["services"]} == {"tls"}


@pytest.mark.parametrize("values", MATRIX)
def test_probes_of_the_api_do_not_use_the_port_that_clients_reach(chart: Helm, values: str) -> None:
    for component, pod in pods(chart.render(values)).items():
        if component == "api":
            container = pod["spec"]["containers"][0]
            probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
            assert {(probe["port"], probe.get("scheme", "HTTP")) for probe in probes} == {("metrics", "HTTP")}


@pytest.mark.parametrize("values", MATRIX)
def test_owner_dsn_is_given_only_to_programs_that_need_it(chart: Helm, values: str) -> None:
    objects = chart.render(values)
    owners = {component for component, pod in pods(objects).items() if "DECKLOG_DATABASE_OWNER_DSN" in environment(pod)}
    assert owners <= ({"api", "migrate"} if values == "owned" else {"operator", "migrate"})
    admins = {component for component, pod in pods(objects).items() if "DECKLOG_DATABASE_ADMIN_DSN" in environment(pod)}
    assert admins == ({"migrate"} if values in ("everything", "dev") else set())


@pytest.mark.parametrize("values", MATRIX)
def test_archive_settings_are_given_to_workers_only(chart: Helm, values: str) -> None:
    told = {component for component, pod in pods(chart.render(values)).items() if "DECKLOG_ARCHIVE_BUCKET" in environment(pod)}
    assert told == ({"worker"} if values in {"everything", "dedicated", "dev"} else set())


@pytest.mark.parametrize("values", MATRIX)
def test_object_names_are_unique_and_selectors_match_only_their_pods(chart: Helm, values: str) -> None:
    objects = chart.render(values)
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    templates = pods(objects)
    for each in (*of(objects, "Service"), *of(objects, "PodDisruptionBudget"), *of(objects, "NetworkPolicy")):
        spec = each["spec"]
        selector = spec["selector"] if each["kind"] == "Service" else (spec.get("selector") or spec["podSelector"])["matchLabels"]
        met = {name for name, pod in templates.items() if selector.items() <= pod["metadata"]["labels"].items()}
        wanted = {name for name in templates if f"-{name}" in each["metadata"]["name"]} or set(templates)
        assert met == wanted, each["metadata"]["name"]


def test_every_pod_has_a_default_deny_network_policy(chart: Helm) -> None:
    objects = chart.render("everything")
    [refusal] = of(objects, "NetworkPolicy", "decklog")
    assert refusal["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in refusal["spec"]
    reached = {
        each["metadata"]["name"].removeprefix("decklog-"): sorted(
            port["port"] for rule in each["spec"].get("egress", []) for port in rule["ports"]
        )
        for each in of(objects, "NetworkPolicy")
        if each is not refusal
    }
    assert reached["migrate"] == [5433]
    assert reached["worker"] == [443, 4318, 5433, 9000, 9200]
    assert reached["api"] == [443, 443, 443, 4318, 5433, 9200]
    assert reached["operator"] == [443, 443, 5433, 6443, 9200]
    assert all("ingress" not in each["spec"] for each in of(objects, "NetworkPolicy", "decklog-migrate"))


def test_helm_test_uses_its_own_tenant_and_secret(chart: Helm) -> None:
    objects = chart.render("minimal", release="other", namespace="place")
    [tenant], [pod] = of(objects, "Tenant"), of(objects, "Pod")
    assert tenant["metadata"]["annotations"]["helm.sh/hook"] == pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert int(tenant["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
    assert tenant["metadata"]["name"] == "other-decklog-doctor"
    assert tenant["spec"]["credentials"]["secretNamespace"] == "place"
    [volume] = pod["spec"]["volumes"]
    assert volume["secret"]["secretName"] == f"{tenant['metadata']['name']}-decklog"
    assert pod["spec"]["containers"][0]["args"][0] == "doctor"
    given = environment(pod)
    assert given["DECKLOG_URL"] == "http://other-decklog-api.place.svc:8321"
    [mount] = pod["spec"]["containers"][0]["volumeMounts"]
    assert given["DECKLOG_KEY_FILE"] == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    [policy] = of(objects, "NetworkPolicy", "other-decklog-doctor")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert of(chart.render("minimal", "--set", "doctor.enabled=false"), "Tenant") == []
    assert of(chart.render("owned"), "Tenant") == []


@pytest.mark.parametrize("values", MATRIX)
def test_tracing_is_set_with_a_collector_and_sampled_by_the_api_only(chart: Helm, values: str) -> None:
    told = {
        component: {name: value for name, value in environment(pod).items() if name.startswith("OTEL_")}
        for component, pod in pods(chart.render(values)).items()
    }
    if values != "everything":
        assert {component for component, given in told.items() if given} == set()
        return
    where = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example.com:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "<decklog-tracing/headers>",
    }
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.05"}
    assert {component: given for component, given in told.items() if given} == {"api": {**where, **sampler}, "worker": where}
    assert tracing_settings.tracing(told["api"]).endpoint == where["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert told["api"].keys() <= tracing_settings.OPENTELEMETRY.keys()


def test_pods_drain_before_they_end(chart: Helm) -> None:
    pod = pods(chart.render("minimal"))["api"]["spec"]
    drain = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain == 10
    assert pod["terminationGracePeriodSeconds"] >= drain + 10


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("api.replica=3", "'/api': additional properties 'replica' not allowed"),
        ("apii.replicas=3", "additional properties 'apii' not allowed"),
        ("database.keys.ownerDSN=x", "'/database/keys': additional properties 'ownerDSN' not allowed"),
        ("api.replicas=many", "'/api/replicas': got string, want integer"),
        ("api.replicas=0", "'/api/replicas': minimum: got 0, want 1"),
        ("logFormat=xml", "'/logFormat': value must be one of 'json', 'text'"),
    ],
)
def test_misspelled_value_is_rejected_by_name(chart: Helm, value: str, complaint: str) -> None:
    with pytest.raises(RefusedError) as refused:
        chart.render("minimal", "--set", value)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (["database.existingSecret="], "operator has no database"),
        (["identity.existingSecret="], "api has no fingerprint key"),
        (["tenantsOwner=decklog"], "set operator.enabled to false"),
        (["worker.keda.enabled=true"], "needs worker.keda.prometheusAddress"),
        (["worker.keda.enabled=true", "worker.autoscaling.enabled=true"], "enable one of them"),
        (["ingress.enabled=true"], "ingress.enabled needs ingress.hosts"),
        (["httpRoute.enabled=true"], "httpRoute.enabled needs httpRoute.parentRefs"),
        (["httpRoute.envoyGateway.enabled=true"], "httpRoute.envoyGateway.enabled needs httpRoute.enabled"),
        (["httpProxy.enabled=true"], "httpProxy.enabled needs httpProxy.host"),
        (["api.drainSeconds=60"], "must be longer than api.drainSeconds"),
        (["dev.enabled=true"], "deploys its own backends and passwords"),
        (["dev.writableRoot=true"], "requires dev.enabled"),
    ],
)
def test_conflicting_values_are_rejected_with_advice(chart: Helm, values: list[str], complaint: str) -> None:
    with pytest.raises(RefusedError) as refused:
        chart.render("minimal", *(word for value in values for word in ("--set", value)))
    assert complaint in str(refused.value)


def test_two_releases_share_no_name(chart: Helm) -> None:
    def names(release: str) -> set[tuple[str, str]]:
        objects = chart.render("everything", "--set", "crds.install=false,doctor.tenant=", release=release)
        return {(each["kind"], each["metadata"]["name"]) for each in objects}

    assert names("decklog") & names("other") == set()
    lease = environment(pods(chart.render("everything", release="other"))["operator"])["DECKLOG_OPERATOR_LEASE_NAME"]
    [role] = [each for each in of(chart.render("everything", release="other"), "Role") if "lease" in json.dumps(each)]
    assert role["rules"][0]["resourceNames"] == [lease] == ["other-decklog-operator"]


def plain(each: Json) -> Json:
    """Return the object without helm's additions: release labels, and the Secret of its own namespace."""
    text = msgspec.json.encode(each).decode()
    found: Json = json.loads(text)

    def strip(value: object) -> None:
        if isinstance(value, dict):
            for name in list(value):
                if name.startswith("helm.sh/") or name in (
                    "app.kubernetes.io/instance",
                    "app.kubernetes.io/version",
                    "app.kubernetes.io/managed-by",
                ):
                    del value[name]
            for inner in value.values():
                strip(inner)
        elif isinstance(value, list):
            for inner in value:
                strip(inner)

    strip(found)
    if not found["metadata"].get("annotations", True):
        del found["metadata"]["annotations"]
    return found


def test_manifests_equal_the_chart_rendered_for_the_operator_only(chart: Helm) -> None:
    def keyed(objects: list[Json]) -> dict[tuple[str, str, str], Json]:
        return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): plain(each) for each in objects}

    rendered = keyed(chart.render("operator"))
    written = keyed(list(yaml.safe_load_all(manifests.install_yaml())))
    for name in [name for name in written if name[0] == "Namespace"]:
        del written[name]  # helm's own --create-namespace
    for name in [name for name in rendered if name[0] == "Service"]:
        del rendered[name]  # for a ServiceMonitor, which the manifests do not contain
    assert rendered.keys() == written.keys()
    for name, each in written.items():
        assert rendered[name] == each, name


PROMISED = {
    "ingest": {"decklog_append_records_total", "decklog_append_group_seconds_bucket"},
    "group size": {"decklog_append_group_records_sum"},
    "lag per consumer": {"decklog_consumer_behind_records", "decklog_consumer_lag_seconds_bucket"},
    "queue age": {"decklog_worker_wake_up_age_seconds_bucket"},
    "partition headroom": {"decklog_keeper_partitions_until_timestamp_seconds"},
    "quota use": {"decklog_operator_storage_quota_used_ratio"},
    "rotation due": {"decklog_operator_rotations_due"},
}
"""What the dashboard has to answer, by what it is told of."""


def told_metrics() -> set[str]:
    """Return all series that the programs export."""
    known = set()
    for family in (*REGISTRY.collect(), *operator_metrics.Census().collect()):
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        known |= {family.name + end for end in ends}
    return known


@pytest.mark.parametrize("promise", PROMISED)
def test_every_objective_has_metrics_and_a_dashboard_panel(promise: str) -> None:
    assert PROMISED[promise] <= told_metrics()
    assert PROMISED[promise] <= set(re.findall(r"\bdecklog_[a-z_]+", (CHART / "files/dashboard.json").read_text()))


def test_alerts_and_dashboard_use_existing_metrics(chart: Helm) -> None:
    known = told_metrics()
    objects = chart.render("everything")
    [rule], [dashboard] = of(objects, "PrometheusRule"), of(objects, "ConfigMap", "decklog-dashboard")
    [scaled] = of(objects, "ScaledObject")
    for text in (json.dumps(rule), dashboard["data"]["decklog.json"], json.dumps(scaled)):
        used = set(re.findall(r"\bdecklog_[a-z_]+", text))
        assert used
        assert used <= known
    assert json.loads(dashboard["data"]["decklog.json"])["title"] == "Decklog"


def test_every_alert_links_to_its_runbook(chart: Helm) -> None:
    runbooks = (DOCS / "guides/runbooks.md").read_text()
    [rule] = of(chart.render("everything"), "PrometheusRule")
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    assert alerts
    for alert in alerts:
        assert f"## {alert['alert']}\n" in runbooks
        assert alert["annotations"]["runbook_url"] == f"https://example.com/runbook#{alert['alert'].lower()}"
        assert 'namespace="decklog-system"' in alert["expr"]
    [rule] = of(chart.render("everything", "--set", "metrics.prometheusRule.runbookUrl="), "PrometheusRule")
    annotations = [each["annotations"] for group in rule["spec"]["groups"] for each in group["rules"]]
    assert [each.keys() for each in annotations] == [{"summary"}] * len(alerts)  # no link rather than a broken one


def test_every_value_has_a_description_and_a_schema() -> None:
    described = chart_files.values()
    assert len(described) > 100
    assert all(value.text.endswith((".", ")")) for value in described)
    for path in sorted((CHART / "ci").glob("*.yaml")):
        assert path.read_text().startswith("# ")


def test_no_value_is_a_secret() -> None:
    names = {value.path[-1].lower() for value in chart_files.values() if "keys" not in value.path}
    numbers = {"tokensecondsmax"}
    assert [name for name in names - numbers if "password" in name or "token" in name or name.endswith("dsn")] == []


def test_undescribed_value_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "values.yaml").write_text("# What it is.\nknown: 1\nunknown: 2\n")
    monkeypatch.setattr(chart_files, "CHART", tmp_path)
    with pytest.raises(ValueError, match="unknown is not described"):
        chart_files.values()


DEV = {"timescale": 5432, "opensearch": 9200, "elasticmq": 9324, "s3": 7070}


def test_only_dev_enabled_deploys_backends(chart: Helm) -> None:
    for values in MATRIX:
        brought = {name for name in pods(chart.render(values)) if name.startswith("dev-")}
        assert brought == ({f"dev-{name}" for name in DEV} if values == "dev" else set())


def test_dev_backends_match_their_addresses_and_get_new_passwords(chart: Helm) -> None:
    def secret(objects: list[Json]) -> dict[str, str]:
        [found] = of(objects, "Secret")
        assert found["metadata"]["name"] == "other-decklog-dev"
        return dict(found["stringData"])

    objects = chart.render("dev", release="other", namespace="place")
    served = {
        f"{each['metadata']['name']}.place.svc": port["port"] for each in of(objects, "Service") for port in each["spec"]["ports"]
    }
    data = secret(objects)

    def read(pod: Json) -> dict[str, str]:
        """Return the variables of a pod, with those of its Secret."""
        return {
            name: re.sub("<other-decklog-dev/(.*)>", lambda match: data[match[1]], value)
            for name, value in environment(pod).items()
        }

    for pod in pods(objects).values():
        for name, value in read(pod).items():
            assert not value.startswith("<"), name
            if address := re.search(r"://(?:[\w:]+@)?([\w.-]+):(\d+)", value):
                assert served[address[1]] == int(address[2]), name
    migration = settings.load(read(pods(objects)["migrate"]))
    for dsn, password in (
        (migration.database.owner_dsn, migration.database.owner_password),
        (data["dsn"], migration.database.service_password),
        (data["worker-dsn"], migration.database.worker_password),
        (migration.database.admin_dsn, data["admin-password"]),
    ):
        assert f":{password}@" in dsn
    again = secret(chart.render("dev", release="other", namespace="place"))
    assert {name for name in data if data[name] == again[name]} == {"access-key-id", "s3-access-key-id"}
    assert min(len(value) for name, value in data.items() if not name.endswith("-key-id")) >= 40


def test_dev_backends_accept_only_the_release_and_use_the_tested_images(chart: Helm) -> None:
    objects = chart.render("dev")
    ports = {}
    for name, port in DEV.items():
        [policy] = of(objects, "NetworkPolicy", f"decklog-dev-{name}")
        [rule] = policy["spec"]["ingress"]
        assert rule["from"][0]["podSelector"]["matchLabels"].keys() == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
        assert "egress" not in policy["spec"]
        [container] = pods(objects)[f"dev-{name}"]["spec"]["containers"]
        ports[container["ports"][0]["name"]] = (container["ports"][0]["containerPort"], port)
        [service] = of(objects, "Service", f"decklog-dev-{name}")
        assert service["spec"]["ports"][0]["targetPort"] == rule["ports"][0]["port"] == name
    assert all(found == wanted for found, wanted in ports.values())
    reached = {
        (
            each["metadata"]["name"],
            rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"],
            rule["ports"][0]["port"],
        )
        for each in of(objects, "NetworkPolicy")
        for rule in each["spec"].get("egress", [])
        if "podSelector" in rule.get("to", [{}])[0] and "doctor" not in each["metadata"]["name"]
    }
    backends = {
        (f"decklog-{who}", f"dev-{name}", DEV[name]) for who in ("api", "worker", "operator") for name in DEV if name != "s3"
    }
    backends.add(("decklog-worker", "dev-s3", 7070))
    assert reached == {*backends, ("decklog-migrate", "dev-timescale", 5432)}
    images = {name: pods(objects)[f"dev-{name}"]["spec"]["containers"][0]["image"] for name in DEV}
    assert images == {name: SERVICES[name]["image"] for name in DEV}


def test_dev_migration_is_no_hook_and_waits_for_its_database(chart: Helm) -> None:
    [job] = of(chart.render("dev"), "Job")
    assert job["metadata"]["name"] == "decklog-migrate-1"
    assert "annotations" not in job["metadata"]
    assert pods([job])["migrate"]["spec"]["containers"][0]["args"] == ["migrate", "--bootstrap", "--post", "--wait=600"]
