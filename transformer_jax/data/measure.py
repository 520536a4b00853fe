"""What the loader costs: CPU milliseconds an image, and memory over many batches.

    python -m transformer_jax.data.measure --images 2000 --batches 500
    python -m transformer_jax.data.measure --embedded digits --preprocess "resize(24) | random_affine | shift(2)"

Without `--embedded` it writes JPEGs of 500x375, random crops of scikit-learn's two photographs, to a temporary folder
and reads them as `folder:`. CPU time is user and system time of the process, all threads together.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from transformer_jax.data import pipeline, sources

PREPROCESS = "decode | inception_crop(224) | flip_lr"


def main(arguments: list[str] | None = None) -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m transformer_jax.data.measure", description="The cost of the loader."
    )
    parser.add_argument("--images", type=int, default=2000, help="JPEGs to write (default: %(default)s)")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs (default: %(default)s)")
    parser.add_argument("--embedded", metavar="SOURCE", help="measure this embedded data set instead")
    parser.add_argument("--preprocess", default=PREPROCESS, metavar="STRING", help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--batches", type=int, default=100, help="measured, after 10 (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="default: those of the pipeline")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        spec, size = chosen.embedded, None
        if spec is None:
            size = write(Path(folder) / "photos", chosen.images, chosen.quality)
            spec = f"folder:{folder}"
        source = sources.open_source(spec)
        train = pipeline.Train(source, chosen.preprocess, batch_size=chosen.batch_size, seed=0, threads=chosen.threads)
        print(json.dumps({"preprocess": chosen.preprocess, "bytes": size, **measure(train, chosen.batches)}))


def measure(train: pipeline.Train, batches: int, *, warm: int = 10) -> dict[str, Any]:
    """CPU and wall milliseconds an image and a batch; resident megabytes after a fifth of them and at the end."""
    stream = train.batches(0)
    for _ in range(warm):
        next(stream)
    cpu, wall, early = time.process_time(), time.perf_counter(), 0.0
    for number in range(batches):
        next(stream)
        if number == batches // 5:
            early = _resident()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    late = _resident()
    stream.close()
    images = batches * train.local_batch_size
    return {
        "images": images,
        "cpu_ms_per_image": round(1e3 * cpu / images, 4),
        "wall_ms_per_image": round(1e3 * wall / images, 4),
        "cpu_ms_per_batch": round(1e3 * cpu / batches, 3),
        "resident_mb": [round(early, 1), round(late, 1)],
    }


def write(folder: Path, count: int, quality: int, *, height: int = 375, width: int = 500) -> int:
    """Photographs as JPEG files; returns the mean size in bytes."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(photo.shape, (height, width), strict=False))
        crop = Image.fromarray(photo[top : top + height, left : left + width])
        crop.save(folder / f"{number:06d}.jpg", quality=quality)
    return sum(file.stat().st_size for file in folder.iterdir()) // count


def _resident() -> float:
    """Resident megabytes of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
