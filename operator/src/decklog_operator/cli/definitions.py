"""`decklog-operator crd` and `decklog-operator manifests`, which need neither a cluster nor a backend."""

from __future__ import annotations

import sys

from decklog_operator import manifests as made


def crd() -> None:
    """Print the custom resource definition of Tenant."""
    sys.stdout.write(made.crd_yaml())


def manifests() -> None:
    """Print everything that the operator needs in a cluster."""
    sys.stdout.write(made.install_yaml())
