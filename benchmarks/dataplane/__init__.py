"""What the data plane's benchmarks share: an instance, servers pinned to a core, load from the other one."""
