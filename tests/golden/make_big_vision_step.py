"""What the compiler expects of big_vision's own training step, for tests/golden/plan/big_vision.json.

    python tests/golden/make_big_vision_step.py CHECKOUT --topology v5e:8x8 --batch 2048 --remat none

CHECKOUT is a clone of google-research/big_vision. Its model, loss and optimizer are imported from there; the step is
put together from them in the order of its train.py: loss, gradient, update, the three norms it reports. Scanned blocks,
bfloat16 compute, float32 parameters, Adam with a bfloat16 first moment, sigmoid loss, a class token. Run it with the
interpreter that has libtpu.
"""

import argparse
import json
import pathlib
import sys
import types
from typing import Any

GOLDEN = pathlib.Path(__file__).parent / "plan" / "big_vision.json"
REMAT = {
    "none": "everything_saveable",
    "dots_no_batch": "checkpoint_dots_with_no_batch_dims",
    "full": "nothing_saveable",
}
CLASSES = 1000


def imported(checkout: str) -> Any:
    """Its modules. It imports TensorFlow for file access alone, which a step does not need."""
    import flax.training.checkpoints  # before the stubs, which it would take for TensorFlow  # noqa: F401

    for name in ("tensorflow", "tensorflow.io", "tensorflow.io.gfile"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["tensorflow"].io = sys.modules["tensorflow.io"]  # ty: ignore[missing-attribute]
    sys.modules["tensorflow.io"].gfile = sys.modules["tensorflow.io.gfile"]  # ty: ignore[missing-attribute]
    sys.path.insert(0, checkout)
    import big_vision.optax as optimizers  # ty: ignore[import-not-found]
    import big_vision.utils as utils  # ty: ignore[import-not-found]
    from big_vision.models import vit  # ty: ignore[import-not-found]

    return types.SimpleNamespace(vit=vit, optimizers=optimizers, utils=utils)


def compiled(theirs: Any, devices: Any, *, variant: str, depth: int | None, batch: int, remat: str, pool: str) -> Any:
    """Their step, compiled for these devices, data-parallel."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import ml_collections
    import numpy as np
    import optax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(devices), ("data",))
    everywhere, cut = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    sizes = dict(theirs.vit.decode_variant(variant), **({"depth": depth} if depth else {}))
    model = theirs.vit._Model(
        CLASSES, **sizes, pool_type=pool, dtype_mm="bfloat16", scan=True, remat_policy=REMAT[remat]
    )
    config = ml_collections.ConfigDict(
        dict(
            optax_name="scale_by_adam",
            optax=dict(mu_dtype="bfloat16"),
            grad_clip_norm=1.0,
            lr=1e-3,
            wd=1e-4,
            schedule=dict(warmup_steps=10_000, decay_type="cosine"),
        )
    )
    images = jax.ShapeDtypeStruct((batch, 224, 224, 3), jnp.float32, sharding=cut)
    labels = jax.ShapeDtypeStruct((batch, CLASSES), jnp.float32, sharding=cut)
    params = nn.unbox(jax.eval_shape(lambda key, x: model.init(key, x)["params"], jax.random.PRNGKey(0), images))
    optimizer, _ = theirs.optimizers.make(
        config, params, sched_kw=dict(total_steps=100_000, batch_size=batch, data_size=1_281_167)
    )
    state = {"params": params, "opt": jax.eval_shape(optimizer.init, params)}
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state)

    def norm(tree: Any) -> jax.Array:
        return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))

    def update(state: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> Any:
        key = jax.random.fold_in(key, theirs.optimizers.get_count(state["opt"], jittable=True))
        _, dropout = jax.random.split(key)

        def loss(params: Any) -> jax.Array:
            logits, _ = model.apply({"params": params}, images, train=True, rngs={"dropout": dropout})
            return theirs.utils.sigmoid_xent(logits=logits, labels=labels)

        value, grads = jax.value_and_grad(loss)(state["params"])
        updates, opt = optimizer.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "opt": opt}, (value, norm(grads), norm(params), norm(updates))

    key = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=everywhere)
    with nn.logical_axis_rules([("act_batch", "data")]), mesh:
        step = jax.jit(
            update, donate_argnums=(0,), out_shardings=(jax.tree.map(lambda _: everywhere, state), everywhere)
        )
        return step.lower(state, key, images, labels).compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout")
    parser.add_argument("--topology", default="v5e:8x8")
    parser.add_argument("--variant", default="L/16")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--remat", choices=list(REMAT), required=True)
    parser.add_argument("--pool", choices=("tok", "gap"), default="tok")
    arguments = parser.parse_args()
    import jax

    jax.config.update("jax_platforms", "cpu")
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    from transformer_jax.tools.plan import program_text, report, topology

    where = topology.describe(arguments.topology)
    options = {key: value for key, value in vars(arguments).items() if key not in ("checkout", "topology")}
    found = compiled(imported(arguments.checkout), where.devices, **options)
    runs, _ = program_text.walk(*program_text.parse(found.as_text()))
    row = {
        "topology": arguments.topology,
        **options,
        "estimated_cycles": program_text.cycles(runs),
        "peak_bytes": found.memory_analysis().peak_memory_in_bytes,
        "versions": {name: report._version(name) for name in ("jax", "libtpu", "flax")},
    }
    print(json.dumps(row))
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else []
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps([*(one for one in known if not _same(one, row)), row], indent=1) + "\n")


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = ("topology", "variant", "depth", "batch", "remat", "pool")
    return all(one[key] == other[key] for key in keys)


if __name__ == "__main__":
    main()
