"""Instances that have run for long, written in bulk: what is measured is a page over them, not how they came about."""
