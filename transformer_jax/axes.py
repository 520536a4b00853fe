"""The vocabulary of the project: one word per axis, used in shapes, shardings and documentation.

| word | what runs along it | einsum letter |
|---|---|---|
| batch | examples | b |
| length | tokens (queries where two lengths meet) | q |
| memory | tokens attended to (keys and values) | k |
| height, width, channels | pixels and colours | |
| embed | features of a token | d |
| heads | query heads | h |
| kv_heads | key and value heads (fewer than `heads` when queries are grouped) | g |
| head_dim | features of a head | e |
| value_dim | features of a head's values where they differ from `head_dim` | v |
| mlp | hidden features of an MLP | f |
| vocab | words of a vocabulary | |
| classes | labels | |
| layers | blocks of a stack | |

A parameter carries its axes as plain metadata (`metadata={"axes": ("embed", "mlp")}`); `parallel.rules` turns them into
shardings. An activation is pinned with `constrain(x, "batch", "length", "embed")`, which does nothing unless
`parallel` has set a rule for the current context: layers never see a mesh.
"""

import contextlib
import contextvars
from collections.abc import Callable, Generator

import jax

WORDS = frozenset(
    "batch length memory height width channels embed heads kv_heads head_dim value_dim mlp vocab classes layers".split()
)

_Rule = Callable[[jax.Array, tuple[str | None, ...]], jax.Array]
_rule: contextvars.ContextVar[_Rule | None] = contextvars.ContextVar("transformer_jax.axes.rule", default=None)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """`x`, its axes named in order (`None`: unnamed), sharded as the current rule says; `x` itself without a rule."""
    rule = _rule.get()
    return x if rule is None else rule(x, names)


@contextlib.contextmanager
def rule(apply: _Rule) -> Generator[None]:
    """Within this context `constrain(x, *names)` is `apply(x, names)`."""
    token = _rule.set(apply)
    try:
        yield
    finally:
        _rule.reset(token)
