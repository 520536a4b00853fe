"""Makes vit_google.npz and vit_logits.npz: tiny weights in Google's layout, and what timm makes of them.

`python tests/golden/make_vit_logits.py` where PyTorch and timm are. torchvision, which timm imports for other models,
may be absent.
"""

import importlib.abc
import importlib.machinery
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.transfer import fakes  # noqa: E402  (a script: the path comes first)


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Every module of torchvision, empty."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = mock.MagicMock(name=spec.name)
        module.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})
        return module

    def exec_module(self, module):
        pass


def main():
    """Write both files."""
    sys.meta_path.append(_Absent())
    import torch
    from timm.models import vision_transformer

    arrays = fakes.google(pre_logits=False)
    model = vision_transformer.VisionTransformer(
        img_size=12,
        patch_size=fakes.PATCH,
        embed_dim=fakes.WIDTH,
        depth=2,
        num_heads=fakes.HEADS,
        mlp_ratio=fakes.MLP / fakes.WIDTH,
        num_classes=fakes.CLASSES,
    ).eval()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/x.npz", **arrays)
        model.load_pretrained(f"{folder}/x.npz")
    image = np.random.default_rng(1).normal(size=(3, 12, 12, 3)).astype(np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).numpy()
    np.savez(HERE / "vit_google.npz", **arrays)
    np.savez(HERE / "vit_logits.npz", image=image, logits=logits)


if __name__ == "__main__":
    main()
