"""Makes tensorflow_images.npz: what TensorFlow makes of small images and of big_vision's arguments to it.

`python tests/golden/make_tensorflow_images.py` writes the file again; it needs TensorFlow, nothing else does.
Resized images are cast to uint8 as big_vision's ops cast them: clipped, fractions cut off.
"""

import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("tensorflow_images.npz")
METHODS = {
    "nearest": ("nearest", False),
    "bilinear": ("bilinear", False),
    "bilinear_antialias": ("bilinear", True),
    "area": ("area", False),
    "bicubic": ("bicubic", False),
    "bicubic_antialias": ("bicubic", True),
}
SIZES = ((11, 16), (38, 31), (20, 26), (7, 60), (3, 2))
BOXED = ((375, 500), (500, 333))
BOXES = 20000
BINS = {"area": (0, 1), "aspect": (0.7, 1.4), "height": (0, 1), "down": (0, 1), "right": (0, 1)}
"""What of a box is counted, and the range its 20 bins cover."""


def images():
    """Noise, a ramp with hard edges, and a grey picture of odd sizes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :33]
    edges = np.where((x // 5 + y // 7) % 2, 255, x * 7)
    return {
        "noise": rng.integers(0, 256, (19, 27, 3), np.uint8),
        "edges": edges.astype(np.uint8)[..., None],
        "blocks": np.kron(rng.integers(0, 256, (5, 7), np.uint8), np.ones((5, 3), np.uint8))[..., None],
    }


def resized():
    """`image/method/height x width` for every combination."""
    import tensorflow as tf

    out = {}
    for name, image in images().items():
        for method, (kind, antialias) in METHODS.items():
            for size in SIZES:
                values = tf.clip_by_value(tf.image.resize(image, size, method=kind, antialias=antialias), 0, 255)
                out[f"{name}/{method}/{size[0]}x{size[1]}"] = tf.cast(values, tf.uint8).numpy()
    return out


def smaller_sides():
    """Rows of height, width, smaller side asked for, new height, new width: float32, rounded half to even."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    asked = np.stack([*rng.integers(20, 2000, (2, 400)), rng.choice([224, 232, 256, 384, 448, 512], 400)], 1)
    # These have a side that ends at exactly one half.
    asked = np.concatenate([asked, [[2 * 256, 2 * k + 1, 256] for k in range(256, 280)]])
    short = tf.cast(tf.reduce_min(asked[:, :2], 1), tf.float32)
    factor = tf.cast(asked[:, 2], tf.float32) / short
    new = tf.cast(tf.round(tf.cast(asked[:, :2], tf.float32) * factor[:, None]), tf.int32)
    return {"smaller_sides": np.concatenate([asked, new.numpy()], 1).astype(np.int32)}


def boxes(height, width):
    """(top, left, height, width) of big_vision's inception crop, many times."""
    import tensorflow as tf

    def draw(number):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            (height, width, 3),
            tf.zeros([0, 0, 4], tf.float32),
            seed=(number, 0),
            area_range=(0.05, 1.0),
            aspect_ratio_range=(0.75, 1.33),
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], size[:2]], 0)

    return np.stack(list(tf.data.Dataset.range(BOXES).map(draw).as_numpy_iterator()))


def histograms(drawn, height, width):
    """Counts of what `BINS` names; `down` and `right` are the share of the room that lies above and to the left."""
    top, left, tall, wide = drawn.T
    down, right = height - tall, width - wide
    values = {
        "area": tall * wide / (height * width),
        "aspect": wide / tall,
        "height": tall / height,
        "down": (top / np.maximum(down, 1))[down > 0],
        "right": (left / np.maximum(right, 1))[right > 0],
    }
    return {name: np.histogram(values[name], 20, at)[0].astype(np.int32) for name, at in BINS.items()}


def make():
    """Everything the file holds."""
    out = {**resized(), **smaller_sides()}
    for size in BOXED:
        drawn = boxes(*size)
        for name, counts in histograms(drawn, *size).items():
            out[f"boxes/{size[0]}x{size[1]}/{name}"] = counts
    return out


if __name__ == "__main__":
    np.savez_compressed(FILE, **make())
