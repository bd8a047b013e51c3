"""A first config for a person's own data: what was found, what is chosen, and why."""
