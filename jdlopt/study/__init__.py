"""Studies: spaces, samplers, populations of trials, and what the results mean."""

WORKER = "jdlopt.study.worker"
"""The module that worker processes of studies and comparisons serve with."""
