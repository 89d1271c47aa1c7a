"""OpenSearch: the search index and its provisioning."""
