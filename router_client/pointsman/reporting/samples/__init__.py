"""Inputs of requests, as figures and names: what may leave a router, and the samples that it sends."""
