"""Makes linen_parity.npz: what google-research/vision_transformer makes of our files of `tests.transfer.parity.LINEN`.

`python tests/golden/make_linen_parity.py FOLDER [NAME ...]`, FOLDER being a clone of that repository. Its own reader
loads our `.npz`; the parameters must be those its own `init` makes, by name and shape. TensorFlow and pandas, which
the reader imports for buckets and tables, are replaced by empty modules.
"""

import builtins
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import flax.training.checkpoints  # noqa: F401  (looks for the real TensorFlow when it is imported)
import jax
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from tests.transfer import parity  # noqa: E402  (a script: the path comes first)
from transformer_jax import paths  # noqa: E402
from transformer_jax.models import functional  # noqa: E402
from transformer_jax.transfer import convert, formats  # noqa: E402


def reference(config):
    """The linen module for one of our configs."""
    from vit_jax import models_vit

    how = functional.models.MODELS["vit"].config(**config)
    size, stem = how.size, how.stem_units
    attributes = types.SimpleNamespace
    return models_vit.VisionTransformer(
        num_classes=how.num_classes,
        patches=attributes(size=how.patch_size),
        transformer=dict(num_layers=size.depth, mlp_dim=size.mlp_dim, num_heads=size.heads),
        hidden_size=size.width,
        resnet=None if stem is None else attributes(width_factor=1, num_layers=stem),
        representation_size=size.width if how.pre_logits else None,
        classifier={"tok": "token", "gap": "gap"}[how.pool],
    )


def compare(config, folder):
    """The logits of the linen code for one model, from our file."""
    from vit_jax import checkpoint

    saved = convert.save(folder / "x.npz", parity.build(config), config, to="npz")
    params = checkpoint.load(str(saved.files[0]))
    image, module = parity.images(config), reference(config)
    made = jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False)["params"])
    shapes = ({path: leaf.shape for path, leaf in paths.flatten(tree).items()} for tree in (params, made))
    assert next(shapes) == next(shapes)
    return np.asarray(module.apply({"params": params}, image, train=False))


def main(repository, only):
    """Writes the file, or with names the entries of these again."""
    sys.path.insert(0, repository)
    files = mock.MagicMock(GFile=builtins.open)
    sys.modules |= {"tensorflow": mock.MagicMock(), "tensorflow.io": mock.MagicMock(gfile=files)}
    sys.modules |= {"pandas": mock.MagicMock(), "tqdm": mock.MagicMock()}
    file = HERE / "linen_parity.npz"
    logits = dict(np.load(file)) if file.exists() and only else {}
    for name, config in parity.LINEN.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            logits[name] = compare(config, Path(folder))
            ours = parity.logits(Path(folder) / "x.npz", parity.images(config))
            print(f"{name}: {np.max(np.abs(ours - logits[name])):.1e} of {np.max(np.abs(ours)):.2f}", flush=True)
    formats.write_npz(file, logits)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
