"""The commands: words in, one call, lines out. Nothing below parses words; a Python user needs nothing of it."""
