"""Numbers in, tables, pictures and pages out. Knows no trainer: it starts none and hooks into none."""
