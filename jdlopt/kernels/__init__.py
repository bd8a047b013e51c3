"""Code that exists for speed alone: pure functions, without files, clocks or global state."""
