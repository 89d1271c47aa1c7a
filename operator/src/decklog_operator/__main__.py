"""`decklog-operator`: the control plane's command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from decklog.domain.errors import Code, DecklogError

_COMMANDS = {
    "run": "serve the Tenants of the cluster that KUBECONFIG or this pod's service account leads to",
    "crd": "print the definition of Tenant",
    "manifests": "print everything that the operator needs in a cluster",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when asked to stop, 2 when a setting is wrong, 1 for everything else."""
    parser = argparse.ArgumentParser(prog="decklog-operator", description="Gives Tenants their database, index, queue and keys.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in _COMMANDS.items():
        commands.add_parser(name, help=text, description=text)
    given = parser.parse_args(arguments)
    if given.command == "run":
        return _run()
    from decklog_operator import manifests  # noqa: PLC0415  # printing needs neither Kopf nor a backend

    sys.stdout.write(manifests.crd_yaml() if given.command == "crd" else manifests.install_yaml())
    return 0


def _run() -> int:
    import uvloop  # noqa: PLC0415  # see above

    from decklog.assembly.control_plane import open_provisioner  # noqa: PLC0415
    from decklog_operator.run import run  # noqa: PLC0415

    try:
        uvloop.run(run(os.environ, open_provisioner))
    except DecklogError as error:
        print(f"decklog-operator: {error.detail}", file=sys.stderr)
        return 2 if error.code is Code.MISCONFIGURED else 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
