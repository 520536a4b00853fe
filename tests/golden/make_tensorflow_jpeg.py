"""Makes tensorflow_jpeg.npz: two small JPEGs and the pixels that TensorFlow decodes from them.

`python tests/golden/make_tensorflow_jpeg.py encode` writes the files into it anew (Pillow and scikit-learn), without
`encode` the pixels (TensorFlow): the two need not be installed side by side. The pictures are cut from scikit-learn's
china.jpg and flower.jpg, by danielbuechele and vultilion on Flickr, under Creative Commons Attribution 2.0.
"""

import io
import pathlib
import sys

import numpy as np

FILE = pathlib.Path(__file__).with_name("tensorflow_jpeg.npz")
CUTS = {"4:2:0": (0, 2, slice(140, 187), slice(200, 267)), "4:4:4": (1, 0, slice(150, 195), slice(230, 293))}
"""By chroma subsampling: which of the photographs, Pillow's name of the subsampling, rows and columns."""
METHODS = {"default": "", "accurate": "INTEGER_ACCURATE"}


def encode():
    """The files, as arrays of bytes."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    out = {}
    for name, (photo, subsampling, rows, columns) in CUTS.items():
        buffer = io.BytesIO()
        picture = Image.fromarray(load_sample_images().images[photo][rows, columns])
        picture.save(buffer, "jpeg", quality=90, subsampling=subsampling)
        out[name] = np.frombuffer(buffer.getvalue(), np.uint8)
    return out


def decode(files):
    """`subsampling/method` for every combination."""
    import tensorflow as tf

    return {
        f"{name}/{method}": tf.io.decode_jpeg(data.tobytes(), dct_method=value).numpy()
        for name, data in files.items()
        for method, value in METHODS.items()
    }


def read():
    """What the file holds."""
    with np.load(FILE) as file:
        return dict(file)


if __name__ == "__main__":
    files = encode() if sys.argv[1:] == ["encode"] else {name: read()[name] for name in CUTS}
    np.savez_compressed(FILE, **files, **({} if sys.argv[1:] == ["encode"] else decode(files)))
