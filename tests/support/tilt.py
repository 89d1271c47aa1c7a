"""Evaluate the Tiltfile with a real Starlark interpreter, and record the calls of Tilt's built-in functions.

Only commands of `local` run: a real helm renders the chart with a real API server.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import starlark
import yaml

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


@dataclass
class Tilt:
    """The recorded calls of a Tiltfile."""

    subcommand: str = "up"
    programs: Mapping[str, str | Path] = field(default_factory=dict)
    """Paths of the programs that `local` may run, by name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    contexts: list[str] = field(default_factory=list)
    images: dict[str, Json] = field(default_factory=dict)
    objects: list[Json] = field(default_factory=list)
    resources: dict[str, Json] = field(default_factory=dict)
    commands: dict[str, Json] = field(default_factory=dict)
    watched: list[str] = field(default_factory=list)
    constraint: str = ""

    def evaluate(self, text: str) -> None:
        """Evaluate the text. Raises `starlark.StarlarkError` when Tilt would reject it, and AssertionError for missing files."""
        dialect = starlark.Dialect.extended()
        dialect.enable_top_level_stmt = True
        module, globals_ = starlark.Module(), starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
        for name in (
            "allow_k8s_contexts", "version_settings", "docker_build", "k8s_yaml", "k8s_resource", "local_resource",
            "read_file", "watch_file", "local", "blob", "encode_yaml", "sync", "fall_back_on", "port_forward",
        ):  # fmt: skip
            built_in: Callable[..., Any] = getattr(self, f"_{name}")
            module.add_callable(name, built_in)
        module["TRIGGER_MODE_MANUAL"] = "manual"
        module["TRIGGER_MODE_AUTO"] = "auto"
        prelude = f"config = struct(tilt_subcommand = {self.subcommand!r})\n"
        starlark.eval(module, starlark.parse("Tiltfile", prelude + text, dialect), globals_)

    def _allow_k8s_contexts(self, contexts: str | list[str]) -> None:
        self.contexts += [contexts] if isinstance(contexts, str) else contexts

    def _version_settings(self, check_updates: bool = True, constraint: str = "") -> None:
        self.constraint = constraint

    def _docker_build(
        self,
        ref: str,
        context: str,
        *,
        dockerfile_contents: str = "",
        entrypoint: list[str] | None = None,
        only: list[str] | None = None,
        live_update: list[Json] | None = None,
    ) -> None:
        assert ref not in self.images, ref
        self.images[ref] = {
            "context": context,
            "dockerfile": dockerfile_contents,
            "entrypoint": entrypoint or [],
            "only": only or [],
            "live_update": live_update or [],
        }

    def _k8s_yaml(self, text: str) -> None:
        self.objects += [each for each in yaml.safe_load_all(text) if each]

    def _k8s_resource(
        self,
        workload: str,
        resource_deps: list[str] | None = None,
        port_forwards: list[Json] | None = None,
        trigger_mode: str = "auto",
        labels: list[str] | None = None,
    ) -> None:
        assert workload not in self.resources, workload
        self.resources[workload] = {
            "deps": resource_deps or [],
            "forwards": port_forwards or [],
            "trigger": trigger_mode,
            "labels": labels,
        }

    def _local_resource(
        self,
        name: str,
        cmd: list[str],
        *,
        deps: list[str] | None = None,
        trigger_mode: str = "auto",
        resource_deps: list[str] | None = None,
        auto_init: bool = True,
        allow_parallel: bool = False,
        labels: list[str] | None = None,
    ) -> None:
        assert name not in self.commands, name
        self.commands[name] = {
            "command": cmd,
            "watched": deps or [],
            "trigger": trigger_mode,
            "deps": resource_deps or [],
            "starts": auto_init,
            "labels": labels,
        }

    def _read_file(self, path: str) -> str:
        return (ROOT / path).read_text()

    def _watch_file(self, path: str) -> None:
        self.watched.append(path)

    def _local(self, command: list[str], quiet: bool = False, echo_off: bool = False) -> str:
        program = self.programs[command[0]]
        done = subprocess.run(
            [program, *command[1:]],
            cwd=ROOT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _blob(self, text: str) -> str:
        return text

    def _encode_yaml(self, value: Json) -> str:
        return str(yaml.safe_dump(value))

    def _sync(self, local: str, remote: str) -> Json:
        return {"sync": local, "to": remote}

    def _fall_back_on(self, files: list[str]) -> Json:
        return {"fall_back_on": files}

    def _port_forward(self, local_port: int, container_port: int, name: str = "", link_path: str = "") -> Json:
        return {"from": local_port, "to": container_port, "path": link_path}
