"""A finished run made smaller or faster, as far as its loss stays within a margin."""
