"""Makes parameters_timm.json: how many parameters timm's copies of published models have.

`python tests/golden/make_parameters_timm.py` where PyTorch and timm are. torchvision may be absent.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import torch_without_vision  # noqa: E402  (a script: the path comes first)

BIT = ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")
VIT = {
    "So400m/14 map": ("vit_so400m_patch14_siglip_224", {}),
    "So400m/14 gap": ("vit_so400m_patch14_siglip_gap_224", {}),
    "g/14 tok": ("vit_giant_patch14_224", {}),
    "g/14 map": ("vit_giant_patch14_224", dict(global_pool="map", class_token=False)),
    "G/14 tok": ("vit_gigantic_patch14_224", {}),
    "G/14 map": ("vit_gigantic_patch14_224", dict(global_pool="map", class_token=False)),
    "H/14 gap": ("vit_huge_patch14_gap_224", {}),
}


def main():
    """Write the file."""
    torch_without_vision.stand_in()
    import timm
    import torch

    def count(name, **options):
        with torch.device("meta"):
            return sum(p.numel() for p in timm.create_model(name, num_classes=1000, **options).parameters())

    counts = {
        "source": f"timm {timm.__version__} on the meta device, 1000 classes, images of 224",
        "resnet": {f"R{name}": count(f"resnetv2_{name}_bit") for name in BIT},
        "vit": {key: count(name, **options) for key, (name, options) in VIT.items()},
    }
    (HERE / "parameters_timm.json").write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
