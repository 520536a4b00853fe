"""From files to NumPy batches: sources, splits, preprocessing ops, and pipelines whose order is arithmetic.

NumPy and Grain only. Nothing here knows a model or a device; the caller says which process of how many it is.
"""
