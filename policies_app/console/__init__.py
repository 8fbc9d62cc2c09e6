"""Console pages: workloads, versions, what is served, and the fleet."""
