"""Pretrain, tune, retrain with seeds, compare: the transfer protocol as one call."""

from transformer_jax.protocol.closed_loop import run
from transformer_jax.protocol.page import table
from transformer_jax.protocol.plan import resolve

__all__ = ["resolve", "run", "table"]
