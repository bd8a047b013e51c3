"""Studies: many trials of a space, those of one structure trained as one program."""
