"""Pages of docs/reference that docs/write_reference.py writes, each a function that returns its text."""
