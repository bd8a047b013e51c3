"""Files that run without jdlopt: a run's model in the formats that other runtimes read."""
