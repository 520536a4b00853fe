"""What trained parameters are worth: classification, label sets, and probes of frozen features."""
