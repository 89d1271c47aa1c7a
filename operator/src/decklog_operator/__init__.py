"""The control plane of Decklog: a Kopf operator for Tenants."""
