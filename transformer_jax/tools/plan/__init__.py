"""Ahead-of-time compilation for hardware that is not there: what a training step needs, what an experiment costs."""

from transformer_jax.tools.plan.compiling import Compiled, compile_step
from transformer_jax.tools.plan.topology import Topology, describe

__all__ = ["Compiled", "Topology", "compile_step", "describe"]
