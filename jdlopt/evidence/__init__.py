"""Evidence: which technique helps on this model and this data, by paired comparisons."""
