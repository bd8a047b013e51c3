"""One coordinator of worker processes, for whatever trains many models."""
