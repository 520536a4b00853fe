"""Arithmetic shared by training and evaluation."""
