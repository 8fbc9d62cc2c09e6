"""Shared code of the data plane's benchmarks: an instance, servers pinned to a core, load from the other one."""
