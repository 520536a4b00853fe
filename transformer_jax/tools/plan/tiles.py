"""What fills the tiles of a TPU badly, in words. A GPU keeps its arrays without."""

import math
from collections.abc import Iterator
from typing import Any

import jax

from transformer_jax.parallel import rules

LANES = 128
"""Places of a row of the tile in which a TPU keeps the last two axes of an array."""


def warnings(compiled: Any) -> list[str]:
    """Of a compiled step; none on GPUs."""
    if compiled.topology.chip.family == "cuda":
        return []
    return [*token_warnings(compiled), *shard_warnings(compiled)]


def token_warnings(compiled: Any) -> Iterator[str]:
    """What one class token costs where it begins another tile (257 tokens against 256)."""
    config = compiled.program.model.config
    prefix, grid = getattr(config, "prefix", 0), getattr(config, "grid", None)
    if not prefix or grid is None:
        return
    length = math.prod(grid)
    with_it, without = (-(-count // LANES) * LANES for count in (length + prefix, length))
    if with_it > without:
        yield (
            f"{length + prefix} tokens take {with_it} places of a TPU's tiles, {length} would take {without}: the class"
            " token makes attention dearer (H/14 on v5e: 286 ms a step against 187, compiler estimate). model.pool=gap"
            " or map needs none."
        )


def shard_warnings(compiled: Any) -> Iterator[str]:
    """Parameters cut into parts of rows that no tile fits, where they are more than a few of all.

    The rows are those of the axis that is cut, wherever it stands: 1280 / 64 = 20 of the query kernels of an H/14 were
    measured to become blocking all-reduces of whole parameters.
    """
    named = jax.tree_util.tree_flatten_with_path(compiled.program.abstract.params)[0]
    every, bad = 0, {}
    for path, leaf in named:
        size = math.prod(leaf.shape)
        every += size
        cut = zip(leaf.shape, leaf.sharding.shard_shape(leaf.shape), strict=True)
        ragged = [(whole, part) for whole, part in cut if part < whole and not rules.tiles(part)]
        if ragged and size >= rules.SMALLEST:
            bad[jax.tree_util.keystr(path, simple=True, separator="/")] = (size, *ragged[0])
    share = sum(size for size, _, _ in bad.values()) / max(every, 1)
    if share > rules.MOST_WHOLE:
        name, (_, whole, part) = max(bad.items(), key=lambda item: item[1][0])
        yield (
            f"{share:.0%} of the parameters are cut into parts that no tile fits, {name} from {whole:,} to {part}"
            " (multiples of 8 fit): their gradients may be all-reduced whole. Another fsdp axis avoids that."
        )
