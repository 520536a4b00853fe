"""What trained parameters are worth: classification, the few-shot and the linear probe on frozen features."""
