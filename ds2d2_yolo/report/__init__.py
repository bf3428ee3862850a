"""Makes tables, pictures and pages from numbers. Does not know trainers: it starts none and has no hooks in them."""
