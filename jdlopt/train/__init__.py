"""Training: the pure step, the one loop around it, and what it leaves on disk."""
