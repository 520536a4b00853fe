"""The training step of a ViT-L/16 as the goldens of its cost have it, and what is kept of it."""

import ml_collections

from transformer_jax import experiment
from transformer_jax.tools.plan import compiling, estimate

BATCHES = {"v5e:8x8": 1024, "v5p:4x4x4": 4096, "v6e:8x8": 4096}


def settings(batch, *, remat=None, depth=None, variant="L/16"):
    """bfloat16 compute, float32 parameters, scanned, Adam with a bfloat16 first moment, sigmoid loss, class token: what
    tests/golden/make_big_vision_step.py has."""
    return experiment.resolve(
        ml_collections.ConfigDict(
            dict(
                name="large",
                model=dict(name="vit", variant=variant, dtype="bfloat16", remat=remat, depth=depth, num_classes=1000),
                data=dict(source="tfds:nowhere", preprocess="value_range(-1, 1) | onehot(1000)", batch_size=batch),
                optim=dict(name="adamw", moment_dtype="bfloat16", weight_decay=0.1, clip_norm=1.0),
                schedule=dict(name="cosine", base=1e-3, warmup=10_000),
                train=dict(total=100_000, loss="sigmoid"),
            )
        )
    )


def facts(topology, batch, *, remat=None, depth=None):
    """What a golden keeps of a compile."""
    compiled = compiling.compile_step(settings(batch, remat=remat, depth=depth), topology)
    assert compiled.fits, compiled.message
    timed = estimate.of(compiled)
    return {
        "topology": topology,
        "batch": batch,
        "remat": remat or "none",
        "depth": depth,
        "peak_bytes": compiled.needed_bytes,
        "parameter_bytes": compiled.bytes_of("params"),
        "collectives": {f"{one.kind} {one.axes}": one.bytes for one in timed.collectives},
        "estimated_cycles": timed.cycles,
    }
