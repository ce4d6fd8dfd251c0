"""What several test files use; ``tests`` is on the path, so that they import it from ``support``."""
