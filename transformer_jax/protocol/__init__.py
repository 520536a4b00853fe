"""Pretrain, tune, retrain with seeds, compare: the transfer protocol as one call."""

from transformer_jax.protocol.closed_loop import resolve, run, table

__all__ = ["resolve", "run", "table"]
