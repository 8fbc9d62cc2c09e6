"""Recorded tasks from the files that owners have: tables by a mapping, and the logs of common gateways.

    open_rows (CSV, JSONL, Parquet) → mapping, or a gateway's format → Task

Every reader streams: a file of any size costs the memory of a row (a gateway's log: that of the calls of open traces).
What can't be read is collected with its row and column, and refused as a whole at the end: nothing is half imported.
"""
