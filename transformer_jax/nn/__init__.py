"""Layers: arrays in, arrays out. No config object, no mesh, no loss, no input or output."""
