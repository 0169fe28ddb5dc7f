"""One section of a report for each stage."""
