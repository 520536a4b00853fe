"""Makes resnet_logits.json: what timm's ResNet-V2 of Big Transfer makes of weights and images that are formulas.

`python tests/golden/make_resnet_logits.py` where PyTorch and timm are. torchvision may be absent.
"""

import functools
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TINY = dict(variant=None, units=(1, 2), width=32, image_size=(33, 40), num_classes=5, epsilon=1e-8)


def weights(shapes):
    """The n-th number of the parameters, in the order of their paths, is `sin(n^2)`, but for the scales about 1.

    Not `sin(n)`: matrices of that have rank 2, and behind group norms this magnifies rounding errors.
    """
    flat, start = {}, 0
    for path, shape in sorted(shapes.items()):
        size = math.prod(shape)
        numbers = np.sin(np.arange(start, start + size, dtype=np.float64) ** 2).reshape(shape)
        flat[path], start = np.float32(1.0 + 0.3 * numbers if path.endswith("scale") else 0.2 * numbers), start + size
    return flat


def images():
    """Two images of cosines."""
    return np.cos(np.arange(2 * 33 * 40 * 3, dtype=np.float64) ** 1.1).reshape(2, 33, 40, 3).astype(np.float32)


def path_of(name):
    """Our name of a parameter of timm."""
    path = (
        name.replace(".", "/")
        .replace("stem/", "root/")
        .replace("head/fc", "head")
        .replace("downsample/conv", "conv_proj")
    )
    path = re.sub(r"stages/(\d+)", lambda m: f"block{int(m[1]) + 1}", path)
    path = re.sub(r"blocks/(\d+)", lambda m: f"unit{int(m[1]) + 1}", path)
    return path.replace("weight", "scale" if "norm" in path else "kernel")


def main():
    """Write the file."""
    sys.path.insert(0, str(HERE))
    import torch_without_vision

    torch_without_vision.stand_in()
    import timm
    import torch
    from timm.layers import StdConv2d
    from timm.models import resnetv2

    model = resnetv2.ResNetV2(
        layers=TINY["units"],
        channels=(128, 256),
        stem_chs=32,
        stem_type="fixed",
        num_classes=5,
        conv_layer=functools.partial(StdConv2d, eps=TINY["epsilon"]),
    ).eval()
    theirs = model.state_dict()
    turned = {name: _turned(np.asarray(tensor), name) for name, tensor in theirs.items()}
    ours = weights({path_of(name): array.shape for name, array in turned.items()})
    made = {name: torch.from_numpy(_back(ours[path_of(name)], tuple(theirs[name].shape))) for name in theirs}
    model.load_state_dict(made)
    with torch.no_grad():
        logits = model(torch.from_numpy(images().transpose(0, 3, 1, 2).copy())).numpy()
    found = {
        "source": f"timm {timm.__version__}, ResNetV2",
        "logits": [[round(float(x), 6) for x in r] for r in logits],
    }
    (HERE / "resnet_logits.json").write_text(json.dumps(found, indent=1) + "\n")


def _turned(array, name):
    """A tensor in our layout: convolutions HWIO, the head a matrix."""
    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return array[0, 0] if name.startswith("head") and array.ndim == 4 else array


def _back(array, shape):
    """The inverse."""
    array = array[None, None] if array.ndim == 2 else array
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array).reshape(shape)


if __name__ == "__main__":
    main()
