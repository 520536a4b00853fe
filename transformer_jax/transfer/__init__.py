"""Weights from elsewhere: formats, name tables, conversion with a report, on flat `{path: array}` dictionaries."""
