"""Provisioning of tenants: observe, plan, apply, report."""
