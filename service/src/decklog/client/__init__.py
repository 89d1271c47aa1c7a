"""A client of the HTTP API, and the verbs that need nothing but the API."""
