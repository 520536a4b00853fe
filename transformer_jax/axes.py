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
shardings. Layers never see a mesh: what they need of it they ask here, and `parallel` answers while a function is
traced for one. Without an answer there is one device, of the default kind.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax

WORDS = frozenset(
    "batch length memory height width channels embed heads kv_heads head_dim value_dim mlp vocab classes layers".split()
)
Names = Sequence[str | None]


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What a program is traced for, which need not be what traces it."""

    platform: str
    """`cpu`, `gpu` or `tpu`."""
    kind: str
    """As JAX names the device: `TPU v5 lite`, `NVIDIA H100 80GB HBM3`."""
    compute_capability: float | None = None
    """Of a GPU: 8.0 Ampere, 9.0 Hopper."""


@runtime_checkable
class Placement(Protocol):
    """Where the axes of arrays lie while a function is traced."""

    @property
    def hardware(self) -> Hardware: ...

    @property
    def examples_only(self) -> bool:
        """Whether nothing but examples is spread over devices: an example lies on one of them, tokens and features."""
        ...

    def constrain(self, x: jax.Array, names: Names) -> jax.Array:
        """`x` pinned where its axes belong."""
        ...

    def on_shards(self, function: Callable[..., Any], inputs: Sequence[Names], output: Names) -> Callable[..., Any]:
        """`function` run by every device on its own part of the inputs, for what the compiler cannot cut itself."""
        ...


@dataclasses.dataclass(frozen=True)
class Alone:
    """The placement of one device of some hardware: nothing is cut."""

    hardware: Hardware
    examples_only: bool = True

    def constrain(self, x: jax.Array, names: Names) -> jax.Array:
        """`x`."""
        return x

    def on_shards(self, function: Callable[..., Any], inputs: Sequence[Names], output: Names) -> Callable[..., Any]:
        """`function`."""
        return function


_current: contextvars.ContextVar[Placement | None] = contextvars.ContextVar(
    "transformer_jax.axes.placement", default=None
)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """`x`, its axes named in order (`None`: unnamed), sharded as the placement says; `x` itself without one."""
    placed = _current.get()
    return x if placed is None else placed.constrain(x, names)


def on_shards(function: Callable[..., Any], inputs: Sequence[Names], output: Names) -> Callable[..., Any]:
    """`function`, run by every device on its own part of the arrays whose axes are named; itself without a placement.

    An axis that the placement cuts must mean the same in every input: `function` is given corresponding parts.
    """
    placed = _current.get()
    return function if placed is None else placed.on_shards(function, inputs, output)


def hardware() -> Hardware:
    """What the program that is being traced will run on."""
    placed = _current.get()
    return of_device(jax.devices()[0]) if placed is None else placed.hardware


def examples_only() -> bool:
    """Whether every example lies on one device: true without a placement."""
    placed = _current.get()
    return True if placed is None else placed.examples_only


def of_device(device: Any) -> Hardware:
    """What kind of hardware a device is, real or described."""
    capability = getattr(device, "compute_capability", None)
    platform = "gpu" if device.platform in ("cuda", "rocm") else device.platform
    return Hardware(platform, device.device_kind, None if capability is None else float(capability))


@contextlib.contextmanager
def placed(placement: Placement) -> Generator[None]:
    """Within this context the functions above ask `placement`."""
    token = _current.set(placement)
    try:
        yield
    finally:
        _current.reset(token)
