"""Makes huggingface_parity.npz: what transformers makes of our files of `tests.transfer.parity.HUGGING_FACE`.

`python tests/golden/make_huggingface_parity.py` where PyTorch, transformers and this package are; hybrids by name and
with transformers 4 (4.46.3 made them), the last that has them. Every file is loaded without a missing, an unexpected or
a reshaped name, and what transformers saves is read back by us bit for bit.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from tests.transfer import parity  # noqa: E402  (a script: the path comes first)
from transformer_jax.transfer import convert, formats  # noqa: E402


def compare(config, folder):
    """The logits of transformers for one model, from our file."""
    import torch
    import transformers

    params = parity.build(config)
    convert.save(folder / "model.safetensors", params, config, to="hf")
    distilled = config.get("distilled")
    word = "DeiT" if distilled else "ViTHybrid" if "stem" in config or "+" in (config["variant"] or "") else "ViT"
    kind = getattr(transformers, f"{word}ForImageClassification{'WithTeacher' if distilled else ''}")
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report[word] for word in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    model.eval().save_pretrained(folder / "theirs")
    theirs = convert.load(folder / "theirs" / "model.safetensors")
    assert theirs.layout.startswith("huggingface") and theirs.heads_known and not theirs.unused
    assert sorted(theirs.params) == sorted(params)
    assert all(np.array_equal(theirs.params[path], leaf) for path, leaf in params.items())
    for name in ("activation", "norm_epsilon"):
        assert theirs.conventions[name] == {"activation": "gelu_tanh", **config}[name]
    image = torch.from_numpy(parity.images(config).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        return model(image).logits.numpy()


def main(only):
    """Writes the file, or with names the entries of these again."""
    file = HERE / "huggingface_parity.npz"
    logits = dict(np.load(file)) if file.exists() and only else {}
    for name, config in parity.HUGGING_FACE.items():
        if only and name not in only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            logits[name] = compare(config, Path(folder))
            ours = parity.logits(Path(folder) / "model.safetensors", parity.images(config))
            print(f"{name}: {np.max(np.abs(ours - logits[name])):.1e} of {np.max(np.abs(ours)):.2f}", flush=True)
    formats.write_npz(file, logits)


if __name__ == "__main__":
    main(sys.argv[1:])
