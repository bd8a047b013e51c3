"""jdlopt makes deep-learning models better and proves it: the tuning playbook, made executable in JAX."""

__version__ = "0.1.0"
