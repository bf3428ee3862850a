"""The commands: words in, one call, lines out. Knows every room below; a Python user needs nothing of it."""
