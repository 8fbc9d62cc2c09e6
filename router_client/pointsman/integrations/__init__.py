"""Integrations with gateways and tools that teams already use. Each module needs the package that it integrates."""
