"""Instances with a long history, written in bulk, because benchmarks measure only the pages that read it."""
