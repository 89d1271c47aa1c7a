"""OpenTelemetry: the adapter that sends traces."""
