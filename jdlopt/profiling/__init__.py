"""Where the time of a run's steps goes: a trace of them, read and put beside the source."""
