"""jdlopt makes deep-learning models better and proves it: the tuning playbook, executable."""

__version__ = "0.1.0"
