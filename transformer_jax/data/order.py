"""Order is arithmetic: which example stands at a position, and which random numbers it sees.

Global position p lies in epoch `p // N`. The epoch's order is a permutation that is computed index by index
(Grain's `index_shuffle`), so no state is kept and any position costs the same. The random numbers of an example are a
Philox stream whose key is (seed, epoch, index): it does not matter which process, thread or batch asks.
"""

import threading
from collections.abc import Sequence

import numpy as np

_INDEX_BITS = 40
_MASK = (1 << 64) - 1
_ROUNDS = 4
"""Grain's own default is 4: enough to shuffle well, the cost is linear in it."""


def mix(*words: int) -> int:
    """64 well-mixed bits of the words (splitmix64, chained): fixed forever, on every platform."""
    state = 0
    for word in words:
        state = (state + (word & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


class Order:
    """The order of `length` examples, epoch after epoch, as a pure function of the seed."""

    def __init__(self, length: int, *, seed: int, shuffle: bool = True):
        self.length = length
        self.seed = seed
        self.shuffle = shuffle

    def __call__(self, position: int) -> tuple[int, int]:
        """(epoch, index) of the example at a global position."""
        epoch, offset = divmod(position, self.length)
        if not self.shuffle or self.length == 1:
            return epoch, offset
        # index_shuffle takes 32-bit numbers; one call is about a microsecond.
        from grain.experimental import index_shuffle

        seed = mix(self.seed, epoch) & 0xFFFFFFFF
        return epoch, int(index_shuffle(offset, max_index=self.length - 1, seed=seed, rounds=_ROUNDS))


class _Local(threading.local):
    def __init__(self) -> None:
        self.generators: list[np.random.Generator] = []


_local = _Local()


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one example in one epoch. A fresh generator, the caller's to keep."""
    return _reset(np.random.Generator(np.random.Philox(0)), seed, epoch, index)


def generators(seed: int, examples: Sequence[tuple[int, int]]) -> list[np.random.Generator]:
    """`generator` for many (epoch, index) pairs, from this thread's pool: valid until the thread's next call.

    Setting the state of a generator costs a tenth of making one, and that is what a batch of small images is made of.
    """
    pool = _local.generators
    while len(pool) < len(examples):
        pool.append(np.random.Generator(np.random.Philox(0)))
    return [_reset(pool[i], seed, epoch, index) for i, (epoch, index) in enumerate(examples)]


def _reset(rng: np.random.Generator, seed: int, epoch: int, index: int) -> np.random.Generator:
    rng.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.zeros(4, np.uint64),
            "key": np.array([seed & _MASK, (epoch << _INDEX_BITS | index) & _MASK], np.uint64),
        },
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return rng
