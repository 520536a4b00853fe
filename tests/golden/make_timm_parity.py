"""Makes timm_parity.npz: what timm makes of the files we write, for every model of `tests.transfer.parity.TIMM`.

`python tests/golden/make_timm_parity.py` where PyTorch, timm and this package are. Every file is loaded by timm with
`strict=True`, and timm's own state, saved by safetensors, is read back by us bit for bit.
"""

import functools
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import torch_without_vision  # noqa: E402  (a script: the path comes first)

from tests.transfer import parity  # noqa: E402
from transformer_jax.transfer import convert, formats, surgery  # noqa: E402


def compare(config, folder):
    """The logits of timm for one model, from our file."""
    import safetensors.torch
    import timm
    import torch

    params = parity.build(config)
    saved = convert.save(folder / "model.safetensors", params, config, to="timm")
    model = by_hand(config) if "stem" in config else timm.create_model(f"local-dir:{folder}", pretrained=False).eval()
    model.load_state_dict(safetensors.torch.load_file(saved.files[0]), strict=True)
    # as a user would, from config.json
    loaded = model if "stem" in config else timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    safetensors.torch.save_file(model.state_dict(), folder / "theirs.safetensors", {"format": "pt"})
    theirs = convert.load(folder / "theirs.safetensors")
    heads = params["blocks/0/attention/query/kernel"].shape[1]
    back = surgery.split_heads(theirs.params, heads)
    assert theirs.layout == "timm" and not theirs.unused and sorted(back) == sorted(saved_names(saved, heads))
    assert all(np.array_equal(back[path], leaf) for path, leaf in saved_names(saved, heads).items())
    image = torch.from_numpy(parity.images(config).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        logits = model(image).numpy()
        assert np.array_equal(logits, loaded(image).numpy())
    return logits


def by_hand(config):
    """A hybrid whose stem has no name in timm."""
    from timm.layers import HybridEmbed
    from timm.models import vision_transformer, vision_transformer_hybrid

    backbone = vision_transformer_hybrid._resnetv2(layers=config["stem"])
    return vision_transformer.VisionTransformer(
        img_size=config["image_size"],
        patch_size=config["patch"],
        embed_layer=functools.partial(HybridEmbed, backbone=backbone),
        embed_dim=config["width"],
        depth=config["depth"],
        num_heads=config["heads"],
        mlp_ratio=config["mlp_dim"] / config["width"],
        num_classes=config["num_classes"],
    ).eval()


def saved_names(saved, heads):
    """What we wrote, as we read it: a fixed position table has become a learned one."""
    return surgery.split_heads(convert.load(saved.files[0]).params, heads)


def main(only):
    """Writes the file, or with names the entries of these again."""
    torch_without_vision.stand_in()
    file = HERE / "timm_parity.npz"
    logits = dict(np.load(file)) if file.exists() and only else {}
    for name, config in parity.TIMM.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            logits[name] = compare(config, Path(folder))
            ours = parity.logits(Path(folder) / "model.safetensors", parity.images(config))
            print(f"{name}: {np.max(np.abs(ours - logits[name])):.1e} of {np.max(np.abs(ours)):.2f}", flush=True)
    formats.write_npz(file, logits)


if __name__ == "__main__":
    main(sys.argv[1:])
