"""Makes tensorflow_augment.npz: what TensorFlow makes of small images under each of RandAugment's operations.

`python tests/golden/make_tensorflow_augment.py` writes the file again; it needs TensorFlow, nothing else does. The
moves are the raw operation that tensorflow_addons' wrappers called, with the matrices they made. Checked once against
big_vision's own file, run with TensorFlow 2.15 (TF_ENABLE_ONEDNN_OPTS=0), tensorflow_addons 0.23 and NumPy 1.26: the
same pixels, to the bit.
"""

import math
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_name("tensorflow_augment.npz")
MAGNITUDES = (2, 10, 15, 20, 25)
CENTRES = ((0, 0), (5, 7), (10, 13))
SIGNED = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def images():
    """Noise with a flat corner, a smooth picture of narrow range with hard edges, and two that are wider or taller than
    most translations are far; odd sizes."""
    noise = np.random.default_rng(0).integers(0, 256, (11, 14, 3), np.uint8)
    noise[:5, :6] = (77, 0, 255)
    y, x = np.mgrid[:18, :23]
    smooth = np.stack([40 + 8 * x, 200 - 7 * y, 90 + 3 * x + 3 * y], -1)
    smooth[(x // 6 + y // 6) % 2 == 1] -= 30
    along = np.arange(131)
    wide = np.stack([along, 255 - along, along * 7 % 256], -1) + np.zeros((3, 1, 1), int)
    wide[1] = wide[1, ::-1] // 2  # rows differ too
    wide = wide.astype(np.uint8)
    tall = np.ascontiguousarray(wide.swapaxes(0, 1))
    return {"noise": noise, "smooth": smooth.astype(np.uint8), "wide": wide, "tall": tall}


def ramp():
    """A large image whose 256 columns are the 256 values: what Contrast takes for the mean grows with the size."""
    return np.ascontiguousarray(np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (224, 256, 3)))


def cases():
    """(name, argument) of every operation with a number, as big_vision computes it from a magnitude."""
    share = [magnitude / 10 for magnitude in MAGNITUDES]
    enhanced = [s * 1.8 + 0.1 for s in share]
    arguments = {
        "AutoContrast": [0.0],
        "Equalize": [0.0],
        "Invert": [0.0],
        "Rotate": [s * 30 for s in share],
        "Posterize": [int(s * 4) for s in share],
        "Solarize": [int(s * 256) for s in share],
        **dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), enhanced),
        **dict.fromkeys(("ShearX", "ShearY"), [s * 0.3 for s in share]),
        **dict.fromkeys(("TranslateX", "TranslateY"), [s * 100 for s in share] + [3.0, 2.5]),
        "SolarizeAdd": [int(s * 110) for s in share],
    }
    signs = {name: (1, -1) if name in SIGNED else (1,) for name in arguments}
    return [(name, sign * value) for name, values in arguments.items() for value in values for sign in signs[name]]


def real(x):
    """In float32."""
    import tensorflow as tf

    return tf.cast(x, tf.float32)


def between(base, image, factor):
    """`base` at 0, `image` at 1, and beyond."""
    import tensorflow as tf

    mixed = real(base) + factor * (real(image) - real(base))
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def autocontrast(channel):
    """One channel stretched to 0..255."""
    import tensorflow as tf

    low, high = real(tf.reduce_min(channel)), real(tf.reduce_max(channel))
    if high <= low:
        return channel
    scale = 255.0 / (high - low)
    return tf.cast(tf.clip_by_value(real(channel) * scale + -low * scale, 0.0, 255.0), tf.uint8)


def equalize(channel):
    """One channel with a flat histogram."""
    import tensorflow as tf

    counts = tf.histogram_fixed_width(tf.cast(channel, tf.int32), [0, 255], nbins=256)
    step = (tf.reduce_sum(counts) - tf.boolean_mask(counts, counts > 0)[-1]) // 255
    if step == 0:
        return channel
    table = (tf.cumsum(counts, exclusive=True) + step // 2) // step
    table = tf.where(tf.range(256) == 0, 0, tf.clip_by_value(table, 0, 255))
    return tf.cast(tf.gather(table, tf.cast(channel, tf.int32)), tf.uint8)


def by_channel():
    """The operations on each channel for itself."""
    import tensorflow as tf

    def each(function):
        return lambda image, _: tf.stack([function(channel) for channel in tf.unstack(image, axis=-1)], -1)

    return {"AutoContrast": each(autocontrast), "Equalize": each(equalize)}


def by_value():
    """The operations on each number for itself."""
    import tensorflow as tf

    def posterize(image, bits):
        shift = tf.constant((8 - bits) % 256, tf.uint8)
        return tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)

    def solarize(image, threshold):
        return tf.where(image < tf.constant(threshold % 256, tf.uint8), image, 255 - image)

    def solarize_add(image, addition):
        brighter = tf.clip_by_value(tf.cast(image, tf.int64) + addition, 0, 255)
        return tf.where(image < 128, tf.cast(brighter, tf.uint8), image)

    return {
        "Invert": lambda image, _: 255 - image,
        "Posterize": posterize,
        "Solarize": solarize,
        "SolarizeAdd": solarize_add,
    }


def sharpness(image, factor):
    """Between the smoothed picture and the image.

    As TensorFlow's own depthwise convolution adds. Its oneDNN one fuses multiplication and addition, which moves some
    sums across whole numbers: which of the two runs depends on the machine.
    """
    import tensorflow as tf

    light, heavy = tf.constant(1.0) / 13.0, tf.constant(5.0) / 13.0
    height, width = image.shape[:2]
    smooth = tf.zeros((height - 2, width - 2, 3))
    for row, column in np.ndindex(3, 3):
        part = real(image[row : row + height - 2, column : column + width - 2])
        smooth += part * (heavy if (row, column) == (1, 1) else light)
    smooth = tf.pad(tf.cast(tf.clip_by_value(smooth, 0.0, 255.0), tf.uint8), [[1, 1], [1, 1], [0, 0]])
    border = np.ones(image.shape, bool)
    border[1:-1, 1:-1] = False
    return between(tf.where(border, image, smooth), image, factor)


def blended():
    """The operations between the image and another picture."""
    import tensorflow as tf

    def color(image, factor):
        return between(tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image)), image, factor)

    def contrast(image, factor):
        grey = tf.cast(min(image.shape[0] * image.shape[1] / 256.0, 255.0), tf.uint8)
        return between(tf.fill(image.shape, grey), image, factor)

    def brightness(image, factor):
        return between(tf.zeros_like(image), image, factor)

    return {"Color": color, "Contrast": contrast, "Brightness": brightness, "Sharpness": sharpness}


def move(image, matrix):
    """Every pixel fetched from where the matrix says, 128 from outside."""
    import tensorflow as tf

    marked = tf.concat([image, tf.ones_like(image[..., :1])], -1)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=marked[None],
        transforms=tf.cast(tf.stack(matrix), tf.float32)[None],
        output_shape=image.shape[:2],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]
    return tf.where(moved[..., 3:] == 0, tf.constant(128, tf.uint8), moved[..., :3])


def rotate(image, degrees):
    """About the centre."""
    import tensorflow as tf

    angle = tf.constant(degrees, tf.float32) * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    down, across = (float(side - 1) for side in image.shape[:2])
    right = (across - (cosine * across - sine * down)) / 2.0
    low = (down - (sine * across + cosine * down)) / 2.0
    return move(image, [cosine, -sine, right, sine, cosine, low, 0, 0])


def operations():
    """A function of image and argument for every name, in TensorFlow."""
    return {
        **by_channel(),
        **by_value(),
        **blended(),
        "Rotate": rotate,
        "ShearX": lambda image, level: move(image, [1, level, 0, 0, 1, 0, 0, 0]),
        "ShearY": lambda image, level: move(image, [1, 0, 0, level, 1, 0, 0, 0]),
        "TranslateX": lambda image, pixels: move(image, [1, 0, pixels, 0, 1, 0, 0, 0]),
        "TranslateY": lambda image, pixels: move(image, [1, 0, 0, 0, 1, pixels, 0, 0]),
    }


def cut_out(image, half, centre):
    """A grey square put over an image as two paddings of a mask."""
    import tensorflow as tf

    sides = [(max(0, at - half), max(0, size - at - half)) for at, size in zip(centre, image.shape, strict=False)]
    hole = [size - sum(side) for side, size in zip(sides, image.shape, strict=False)]
    kept = tf.pad(tf.zeros(hole, tf.bool), sides, constant_values=True)
    return tf.where(kept[..., None], image, tf.constant(128, tf.uint8)).numpy()


def make():
    """One array an image, its cases one after the other; a row of the large ramp; the squares cut out of the noise."""
    import tensorflow as tf

    functions = operations()
    out = {
        name: np.stack([functions[case](tf.constant(image), argument).numpy() for case, argument in cases()])
        for name, image in images().items()
    }
    out["ramp"] = functions["Contrast"](tf.constant(ramp()), 1.9).numpy()[0]
    out["cutout"] = np.stack([cut_out(images()["noise"], 4, centre) for centre in CENTRES])
    return out


if __name__ == "__main__":
    np.savez_compressed(FILE, **make())
