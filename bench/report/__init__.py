"""Report of a benchmark session: records, page, plots."""
