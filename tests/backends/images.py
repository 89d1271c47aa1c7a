"""Build the images of this repository's Dockerfiles without Docker: run the lines of the files on a base of Debian packages.

COPY and RUN of the stages before the last run in a chroot over overlayfs layers, in a private mount namespace. The cache keeps
the slow layers (base and libraries) and the built board; the layer of the sources is built each time. Needs root on Linux and a Debian mirror.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import IO, Any

from tests.backends.cache import Building, Recipe, make_folder, provision, remove
from tests.backends.node import SANDBOX
from tests.backends.packages import command_or_package, debian_mirror, from_pypi
from tests.support.images import ROOT, Stage, context, copy, stages
from tests.support.images import built as build_stage

SUITE, PACKAGES = "bookworm", "python3,python3-venv,ca-certificates,curl,busybox"
"""Debian with Python, as python:3.11-slim-bookworm. The other packages build and probe the images of `docker`."""
DOCKERFILES = {"decklog": ROOT / "service/Dockerfile", "decklog-operator": ROOT / "operator/Dockerfile"}
CACHED_UP_TO = ["LICENSE", "/opt/decklog/"]
"""The first COPY after the libraries. Its instruction and all later ones are not cached."""
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OCI = "application/vnd.oci.image."
Run = Callable[[Sequence[str | Path]], None]

# Arguments: the mount point, the options of overlayfs, a folder and a shell command. The host's /etc has the configuration and
# the certificate authorities for package registries.
_IN_LAYERS = """
set -e
root=$1 layers=$2; shift 2
mount -t overlay overlay -o "$layers" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /etc "$root/etc"
exec env PATH="$0" chroot "$root" /bin/sh -c 'cd "$1" && eval "$2"' sh "$@"
"""


@dataclass(frozen=True)
class Blob:
    """One part of an image, addressed by the digest of its content."""

    content: bytes | Path
    digest: str
    size: int

    @classmethod
    def of(cls, content: bytes | Path) -> Blob:
        if isinstance(content, bytes):
            return cls(content, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
        with content.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(content, f"sha256:{digest}", content.stat().st_size)

    def descriptor(self, kind: str, **more: object) -> dict[str, object]:
        return {"mediaType": f"{OCI}{kind}", "digest": self.digest, "size": self.size, **more}


@dataclass(frozen=True)
class Image:
    names: tuple[str, ...]
    layers: tuple[Blob, ...]
    config: Mapping[str, Any]


def archive(images: Sequence[Image]) -> Callable[[IO[bytes]], None]:
    """Return a function that writes an OCI archive of these images to a stream."""
    blobs: dict[str, Blob] = {}
    manifests = []
    for image in images:
        kept = {"rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in image.layers]}, "config": image.config}
        config = Blob.of(json.dumps({"architecture": ARCHITECTURE, "os": "linux", **kept}).encode())
        document = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": config.descriptor("config.v1+json"),
            "layers": [layer.descriptor("layer.v1.tar") for layer in image.layers],
        }
        manifest = Blob.of(json.dumps(document).encode())
        blobs |= {blob.digest: blob for blob in (*image.layers, config, manifest)}
        manifests += [
            manifest.descriptor("manifest.v1+json", annotations={"io.containerd.image.name": name}) for name in image.names
        ]
    index = json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": manifests}).encode()

    def write(stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="w|") as tar:
            _add(tar, "oci-layout", Blob.of(b'{"imageLayoutVersion":"1.0.0"}'))
            for digest, blob in blobs.items():
                _add(tar, f"blobs/{digest.replace(':', '/')}", blob)
            _add(tar, "index.json", Blob.of(index))

    return write


def _add(tar: tarfile.TarFile, name: str, blob: Blob) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = blob.size
    with io.BytesIO(blob.content) if isinstance(blob.content, bytes) else blob.content.open("rb") as content:
        tar.addfile(entry, content)


def provision_all() -> None:
    """Provision the base layer, the layers of libraries and the board."""
    for recipe in (*LIBRARIES.values(), board_recipe()):
        provision(recipe)


def built(folder: Path, tags: Sequence[str]) -> list[Image]:
    """Build both images from the current sources as `localhost/<name>:<tag>` for each tag, and the sandbox image of pods.

    `folder` holds their last layers; the caller must keep it while it uses the images.
    """
    base = Blob.of(provision(BASE) / "layer.tar")
    path = [f"PATH={PROGRAMS}"]
    waiting = {"Entrypoint": ["/usr/bin/sleep", "infinity"], "Env": path, "User": "65532:65532"}
    found = [Image((SANDBOX,), (base,), waiting)]
    for name, dockerfile in DOCKERFILES.items():
        first, last = build_stage(dockerfile), stages(dockerfile)[-1]
        libraries = provision(LIBRARIES[name])
        upper = folder / name
        _carry_out(_run, first, _after_libraries(first), [libraries / "files", provision(BASE) / "root"], upper)
        layers = (base, Blob.of(libraries / "layer.tar"), Blob.of(_packed(_run, upper, folder / f"{name}.tar", "opt/decklog")))
        found.append(Image(tuple(f"localhost/{name}:{tag}" for tag in tags), layers, _configuration(last, path)))
    return found


def _configuration(last: Stage, environment: list[str]) -> dict[str, Any]:
    """Return the image configuration of the last stage. Fail if that stage does more than copy the result of the first."""
    assert last.of("COPY") == [["--from=build", "/opt/decklog", "/opt/decklog"]]
    assert not last.of("RUN")
    arguments, labels, variables = ([word for words in last.of(name) for word in words] for name in ("ARG", "LABEL", "ENV"))
    known = dict(each.split("=", 1) for each in arguments)
    [[user], [where], [port], entry, command] = (last.of(name)[0] for name in ("USER", "WORKDIR", "EXPOSE", "ENTRYPOINT", "CMD"))
    return {
        "User": user,
        "WorkingDir": where,
        "ExposedPorts": {f"{port}/tcp": {}},
        "Entrypoint": entry,
        "Cmd": command,
        "Env": [*environment, *variables],
        "Labels": {name: Template(value).substitute(known) for name, value in (each.split("=", 1) for each in labels)},
    }


def _run(words: Sequence[str | Path]) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _after_libraries(stage: Stage) -> range:
    return range(stage.instructions.index(("COPY", CACHED_UP_TO)), len(stage.instructions))


def _carry_out(run: Run, stage: Stage, which: range, lowers: Sequence[Path], upper: Path) -> None:
    """Run the instructions `which` of a stage over the layers `lowers`, uppermost first, and write their changes to `upper`."""
    beside = upper.with_name(f".{upper.name}")
    work, root = beside / "work", beside / "root"
    for each in (upper, work, root):
        make_folder(each)
    layers = f"lowerdir={':'.join(map(str, lowers))},upperdir={upper},workdir={work}"
    variables: list[str] = []
    where = "/"
    for number, (name, words) in enumerate(stage.instructions):
        match name:
            case "ARG" | "ENV":
                variables += words
            case "WORKDIR":
                [where] = words
                make_folder(upper / where.removeprefix("/"))
            case "COPY" if number in which and words[0] == "--from=board":
                shutil.copytree(provision(board_recipe()) / Path(words[1]).relative_to("/"), upper / words[2].lstrip("/"))
            case "COPY" if number in which:
                copy(words, upper, where)
            case "RUN" if number in which and not _brings_uv(words):
                enter = ["env", *variables, "unshare", "--mount", "--propagation", "private", "sh", "-c", _IN_LAYERS, PROGRAMS]
                run([*enter, root, layers, where, *words])
    remove(beside)


def _brings_uv(words: list[str]) -> bool:
    """Return whether a RUN installs uv. It is skipped: the base has no pip, and the same uv version comes from its wheel."""
    return "pip install" in words[0] and "requirements-uv.lock" in words[0]


def _packed(run: Run, files: Path, tar: Path, inside: str) -> Path:
    """Write a layer to `tar` and return its path. Equal files give equal bytes."""
    run(
        [
            "tar",
            "--create",
            "--file",
            tar,
            "--directory",
            files,
            "--sort=name",
            "--mtime=@0",
            "--numeric-owner",
            "--exclude=./dev/*",
            inside,
        ]
    )
    return tar


def _build_base(building: Building) -> None:
    root = building.folder / "root"
    debootstrap = command_or_package(building, "debootstrap")
    building.run([debootstrap, "--variant=minbase", f"--include={PACKAGES}", SUITE, root, debian_mirror()])
    (root / "usr/local/bin/wget").symlink_to("/bin/busybox")
    for each in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        remove(root / each)
    _packed(building.run, root, building.folder / "layer.tar", ".")


def _libraries(name: str) -> Recipe:
    first = build_stage(DOCKERFILES[name])
    which = range(_after_libraries(first).start)
    files = sorted(
        {source for number in which if first.instructions[number][0] == "COPY" for source in first.instructions[number][1][:-1]}
    )

    def build(building: Building) -> None:
        upper = building.folder / "files"
        _carry_out_with_uv(building, first, which, upper)
        for each in upper.iterdir():
            if each.name != "opt":
                remove(each)
        _packed(building.run, upper, building.folder / "layer.tar", "opt/decklog")

    parts = (BASE.key, repr(first.instructions[: which.stop]), *((ROOT / each).read_text() for each in files))
    return Recipe(f"libraries-{name}", parts, build)


def _carry_out_with_uv(building: Building, stage: Stage, which: range, upper: Path) -> None:
    """Run instructions of a stage over the base alone, with uv in place of the instruction that installs it."""
    [version] = re.findall(r"^uv==(\S+)", (ROOT / "requirements-uv.lock").read_text(), re.MULTILINE)
    make_folder(upper)
    from_pypi(building, f"uv=={version}", upper / "uv")
    _carry_out(building.run, stage, which, [provision(BASE) / "root"], upper)


def board_recipe() -> Recipe:
    """Return the recipe of the stage `board`; its folder has the built board at the path that the Dockerfile copies."""
    [stage] = [stage for stage in stages(DOCKERFILES["decklog"]) if stage.name == "board"]
    [result] = [words[1] for words in build_stage(DOCKERFILES["decklog"]).of("COPY") if words[0] == "--from=board"]

    def build(building: Building) -> None:
        upper = building.folder / "files"
        _carry_out_with_uv(building, stage, range(len(stage.instructions)), upper)
        kept = building.folder / Path(result).relative_to("/")
        make_folder(kept.parent)
        shutil.copytree(upper / Path(result).relative_to("/"), kept)
        remove(upper)

    sources = sorted(name for name in context() if name.startswith("board/"))
    files = [*sources, "requirements.lock", "requirements-uv.lock"]
    parts = (BASE.key, repr(stage.instructions), *(f"{name}\n{(ROOT / name).read_text()}" for name in files))
    return Recipe("board", parts, build)


BASE = Recipe("base", (SUITE, PACKAGES, PROGRAMS), _build_base)
LIBRARIES = {name: _libraries(name) for name in DOCKERFILES}
