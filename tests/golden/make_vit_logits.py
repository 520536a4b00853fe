"""Makes vit_google.npz and vit_logits.npz: tiny weights in Google's layout, and what timm makes of them.

`python tests/golden/make_vit_logits.py` where PyTorch and timm are. torchvision, which timm imports for other models,
may be absent.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import torch_without_vision  # noqa: E402  (a script: the path comes first)

from tests.transfer import fakes  # noqa: E402


def main():
    """Write both files."""
    torch_without_vision.stand_in()
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
