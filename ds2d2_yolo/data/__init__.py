"""Data: the overhead scenes that the package renders itself."""
