"""Read recorded tasks from common files: tables with a mapping, and the logs of gateways.

    open_rows (CSV, JSONL, Parquet) → mapping, or a gateway's format → Task

Every reader streams: a file of any size uses the memory of one row (for a gateway's log, of the calls of open
traces). Unreadable values are collected with their row and column, and the file is refused as a whole at the end, so
that nothing is half imported.
"""
