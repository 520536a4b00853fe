"""Transformers in JAX and Flax NNX: pretrain, fine-tune, evaluate, from a laptop CPU to a TPU pod."""

__version__ = "0.1.0"
