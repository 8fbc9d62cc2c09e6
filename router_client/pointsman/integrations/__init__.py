"""Pointsman in the gateways and tools that teams run already. Each module needs the package that it is for."""
