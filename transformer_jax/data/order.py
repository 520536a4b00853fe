"""Order is arithmetic: which example stands at a position, and which random numbers it sees.

Global position p lies in epoch `p // N`. The epoch's order is a permutation that is computed index by index, so no
state is kept and any position costs the same. (Grain's `index_shuffle` is one too, at 64 microseconds an index among
1,437; this one takes a batch at once and is fixed whatever Grain's version.) The random numbers of an example are a
Philox stream whose key is (seed, epoch, index): it does not matter which process, thread or batch asks.
"""

import threading
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt64

_INDEX_BITS = 40
_MASK = (1 << 64) - 1
_ROUNDS = 8
_LEAST_BITS = 4


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

    def __call__(self, positions: Int64[np.ndarray, " batch"]) -> list[tuple[int, int]]:
        """(epoch, index) of the examples at these global positions."""
        epochs, offsets = np.divmod(positions, self.length)
        if self.shuffle:
            indices = np.empty_like(offsets)
            for epoch in np.unique(epochs):
                here = epochs == epoch
                indices[here] = permuted(offsets[here], self.length, mix(self.seed, int(epoch)))
            offsets = indices
        return list(zip(epochs.tolist(), offsets.tolist(), strict=True))


def permuted(offsets: Int64[np.ndarray, " batch"], length: int, key: int) -> Int64[np.ndarray, " batch"]:
    """Where a permutation of `0 .. length - 1`, chosen by the key, sends these offsets.

    A Feistel network permutes the next power of two; what falls outside goes through again until it falls inside.
    """
    bits = max((length - 1).bit_length(), _LEAST_BITS)
    keys = [np.uint64(mix(key, number)) for number in range(_ROUNDS)]
    out = _feistel(offsets.astype(np.uint64), bits, keys)
    while (outside := np.flatnonzero(out >= length)).size:
        out[outside] = _feistel(out[outside], bits, keys)
    return out.astype(np.int64)


def _feistel(values: UInt64[np.ndarray, " batch"], bits: int, keys: list[np.uint64]) -> UInt64[np.ndarray, " batch"]:
    widths = bits // 2, bits - bits // 2
    low, high = values & np.uint64((1 << widths[1]) - 1), values >> np.uint64(widths[1])
    for number, key in enumerate(keys):
        mixed = (low + key) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
        width = widths[number % 2]
        high, low = low, high ^ (mixed >> np.uint64(64 - width))
    return high << np.uint64(widths[1]) | low


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
