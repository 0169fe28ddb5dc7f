"""Reports of parity and accuracy: records, pages, plots."""
