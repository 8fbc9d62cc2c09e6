"""Pages of workloads, their versions, what is served of them, and the fleet that follows."""
