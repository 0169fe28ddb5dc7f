"""One stage of parity.md each: `render(records, folder)` gives its markdown and writes its plots."""
