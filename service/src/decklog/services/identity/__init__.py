"""Credentials become principals: API keys, JSON Web Tokens and the registry that both rely on."""
