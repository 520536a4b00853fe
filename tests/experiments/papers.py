"""The tables of the papers, written down a second time: what the recipes are compared with."""

import itertools

IMAGES = {"jft": 303_000_000, "imagenet21k": 14_200_000, "imagenet1k": 1_281_167}
PRETRAINED = ["decode(reduce=False)", "inception_crop(224)", "flip_lr", "value_range(-1, 1)"]
PRETRAINED_JUDGED = ["decode", "resize_small(256)", "central_crop(224)", "value_range(-1, 1)"]
CLASSES = {"jft": 18_000, "imagenet21k": 21_843, "imagenet1k": 1_000}

# ViT, 2010.11929, table 3: model, epochs, base rate, decay, weight decay, dropout, thousands of steps
TABLE_3 = {
    "jft": [
        ("B/16", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("B/32", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("L/32", 7, 0.0006, "linear", 0.1, 0.0, 518),
        ("L/16", 7, 0.0004, "linear", 0.1, 0.0, 518),
        ("L/16", 14, 0.0004, "linear", 0.1, 0.0, 1036),
        ("H/14", 14, 0.0003, "linear", 0.1, 0.0, 1036),
        ("R50x1", 7, 0.001, "linear", 0.1, 0.0, 518),
        ("R50x2", 7, 0.001, "linear", 0.1, 0.0, 518),
        ("R101x1", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("R152x1", 7, 0.0006, "linear", 0.1, 0.0, 518),
        ("R152x2", 7, 0.0006, "linear", 0.1, 0.0, 518),
        ("R50+B/16", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("R50+B/32", 7, 0.0008, "linear", 0.1, 0.0, 518),
        ("R50+L/32", 7, 0.0002, "linear", 0.1, 0.0, 518),
        ("R50+L/16", 7, 0.0004, "linear", 0.1, 0.0, 518),
        ("R50+L/16", 14, 0.0004, "linear", 0.1, 0.0, 1036),
    ],
    "imagenet21k": [
        ("B/16", 90, 0.001, "linear", 0.03, 0.1, 312),
        ("B/32", 90, 0.001, "linear", 0.03, 0.1, 312),
        ("L/16", 30, 0.001, "linear", 0.03, 0.1, 104),
        ("L/16", 90, 0.001, "linear", 0.03, 0.1, 312),
        ("L/32", 30, 0.001, "linear", 0.03, 0.1, 104),
        ("L/32", 90, 0.001, "linear", 0.03, 0.1, 312),
    ],
    "imagenet1k": [(model, 300, 0.003, "cosine", 0.3, 0.1, 93.8) for model in ("B/16", "B/32", "L/16", "L/32", "H/14")],
}
ROWS = [(data, *row) for data, rows in TABLE_3.items() for row in rows]

# AugReg, 2106.10270: RandAugment's layers and magnitude, mixup
AUGMENTATIONS = {
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}
REGULARISATIONS = {"none": 0.0, "both": 0.1}
COMBINATIONS = list(itertools.product(AUGMENTATIONS, REGULARISATIONS, (0.1, 0.03)))
# big_vision's choice for every size
DEFAULTS = {
    "imagenet1k": {
        "Ti/16": "light1",
        "S/32": "medium1",
        "S/16": "medium2",
        "B/32": "medium2",
        "B/16": "medium2",
        "L/16": "medium2",
    },
    "imagenet21k": {
        "Ti/16": "none",
        "S/32": "none",
        "S/16": "light1",
        "B/32": "light2",
        "B/16": "light2",
        "L/16": "medium2",
    },
}
AUGREG_ROWS = [("imagenet1k", 300, 93.8), ("imagenet21k", 30, 104), ("imagenet21k", 300, 1040)]

# Better plain ViT, 2205.01580, table 1: what every ablation changes
PLAIN = {
    "pool": "gap",
    "position": "sincos2d",
    "pre_logits": True,
    "batch": 1024,
    "randaug": (2, 10),
    "mixup": 0.2,
}
NO_AUGMENT = {"randaug": (0, 0), "mixup": 0.0}
ORIGINAL = {"position": "learned", "batch": 4096, "pool": "tok"}
ABLATIONS = {
    "": {},
    "augment": NO_AUGMENT,
    "position": {"position": "learned"},
    "batch": {"batch": 4096},
    "token": {"pool": "tok"},
    "head": {"pre_logits": False},
    "setup": ORIGINAL,
    "original": {**ORIGINAL, **NO_AUGMENT},
}

LARGE, SMALL = (0.003, 0.01, 0.03, 0.06), (0.001, 0.003, 0.01, 0.03)
# ViT, 2010.11929, table 4: steps, warm-up, grid, train, dev, test, classes, crop
TABLE_4 = {
    "imagenet2012": (20_000, 500, LARGE, "train[:99%]", "train[99%:]", "validation", 1000, "inception"),
    "cifar100": (10_000, 500, SMALL, "train[:98%]", "train[98%:]", "test", 100, "small"),
    "cifar10": (10_000, 500, SMALL, "train[:98%]", "train[98%:]", "test", 10, "small"),
    "oxford_iiit_pet": (500, 100, SMALL, "train[:90%]", "train[90%:]", "test", 37, "inception"),
    "oxford_flowers102": (500, 100, SMALL, "train[:90%]", "train[90%:]", "test", 102, "inception"),
}
CROPS = {
    "inception": ["decode(reduce=False)", "inception_crop(384)", "flip_lr", "value_range(-1, 1)"],
    "small": ["decode", "resize_small(448)", "random_crop(384)", "flip_lr", "value_range(-1, 1)"],
    "resize": ["decode", "resize(448)", "random_crop(384)", "flip_lr", "value_range(-1, 1)"],
    "squash": ["decode", "resize(384)", "flip_lr", "value_range(-1, 1)"],
}
JUDGED = ["decode", "resize_small(448)", "central_crop(384)", "value_range(-1, 1)"]
SQUASHED = ["decode", "resize(384)", "value_range(-1, 1)"]
# The two rows that AugReg adds to table 4: steps, warm-up, grid, train, dev, final, test, crop (UNVERIFIED), rate (too)
ADDED = {
    "resisc45": (
        2_500,
        200,
        SMALL[:3],
        "train[:18900]",
        "train[18900:25200]",
        "train[:25200]",
        "train[25200:]",
        "resize",
    ),
    "kitti": (500, 100, SMALL[:3], "train", "validation", "train+validation", "test", "squash"),
}
# big_vision's best rates of AugReg's B/32; AugReg's two rows have none of their own
RATES = {
    "imagenet2012": 0.03,
    "cifar100": 0.01,
    "cifar10": 0.003,
    "oxford_iiit_pet": 0.003,
    "oxford_flowers102": 0.003,
    "resisc45": 0.01,
    "kitti": 0.01,
}
MODELS = ("B/16", "B/32", "L/16", "L/32", "H/14")

# VTAB-1k as the ViT paper runs it: source, tuning examples, test, classes, crops and flips, label function, group
VTAB = {
    "caltech101": ("caltech101:3.*.*", "train[2754:2954]", "test", 102, "cf", None, "natural"),
    "cifar100": ("cifar100:3.*.*", "train[45000:45200]", "test", 100, "cf", None, "natural"),
    "dtd": ("dtd:3.*.*", "validation[:200]", "test", 47, "cf", None, "natural"),
    "flowers": ("oxford_flowers102:2.*.*", "validation[:200]", "test", 102, "cf", None, "natural"),
    "pets": ("oxford_iiit_pet:4.*.*", "train[2944:3144]", "test", 37, "cf", None, "natural"),
    "sun397": ("sun397/tfds:4.*.*", "validation[:200]", "test", 397, "cf", None, "natural"),
    "svhn": ("svhn_cropped:3.*.*", "train[65931:66131]", "test", 10, "cf", None, "natural"),
    "camelyon": ("patch_camelyon:2.*.*", "validation[:200]", "test", 2, "cf", None, "specialized"),
    "eurosat": ("eurosat/rgb:2.*.*", "train[16200:16400]", "train[21600:]", 10, "cf", None, "specialized"),
    "resisc45": ("resisc45:3.*.*", "train[18900:19100]", "train[25200:]", 45, "cf", None, "specialized"),
    "retinopathy": (
        "diabetic_retinopathy_detection/btgraham-300:3.*.*",
        "validation[:200]",
        "test",
        5,
        "cf",
        None,
        "specialized",
    ),
    "clevr_count": ("clevr:3.*.*", "train[63000:63200]", "validation", 8, "f", "clevr_count_all", "structured"),
    "clevr_distance": (
        "clevr:3.*.*",
        "train[63000:63200]",
        "validation",
        6,
        "f",
        "clevr_closest_object_distance",
        "structured",
    ),
    "dmlab": ("dmlab:2.0.1", "validation[:200]", "test", 6, "f", None, "structured"),
    "dsprites_location": (
        "dsprites:2.*.*",
        "train[589824:590024]",
        "train[663552:]",
        16,
        "",
        "dsprites_label_x_position",
        "structured",
    ),
    "dsprites_orientation": (
        "dsprites:2.*.*",
        "train[589824:590024]",
        "train[663552:]",
        16,
        "c",
        "dsprites_label_orientation",
        "structured",
    ),
    "kitti": ("kitti:3.1.0", "validation[:200]", "test", 4, "f", "kitti_closest_vehicle_distance", "structured"),
    "norb_azimuth": ("smallnorb:2.*.*", "test[:200]", "test[50%:]", 18, "c", "smallnorb_label_azimuth", "structured"),
    "norb_elevation": (
        "smallnorb:2.*.*",
        "test[:200]",
        "test[50%:]",
        9,
        "cf",
        "smallnorb_label_elevation",
        "structured",
    ),
}

# big_vision's few-shot suite: data set, shots are drawn from, judged on
FEWSHOT = {
    "caltech101": ("tfds:caltech101", "train", "test"),
    "cars196": ("tfds:cars196:2.1.0", "train", "test"),
    "cifar100": ("tfds:cifar100", "train", "test"),
    "dtd": ("tfds:dtd", "train", "test"),
    "oxford_iiit_pet": ("tfds:oxford_iiit_pet", "train", "test"),
    "uc_merced": ("tfds:uc_merced", "train[:1000]", "train[1000:]"),
    "imagenet2012": ("tfds:imagenet2012", "train[:65000]", "validation"),
}

# AugReg, 2106.10270, table 4: rates, (steps, warm-up)
AUGREG = {
    "imagenet2012": ((0.01, 0.03), ((20_000, 500),)),
    "oxford_iiit_pet": ((0.001, 0.003, 0.01), ((500, 100), (2_500, 200))),
    "kitti": ((0.001, 0.003, 0.01), ((500, 100), (2_500, 200))),
    "cifar100": ((0.001, 0.003, 0.01), ((2_500, 200), (10_000, 500))),
    "resisc45": ((0.001, 0.003, 0.01), ((2_500, 200), (10_000, 500))),
}


def table_3(data, model, epochs):
    """The arguments of a row."""
    return dict(model=model, data=data, epochs=epochs, **({"source": "folder:mine"} if data == "jft" else {}))


def combination(row):
    """The arguments of a combination."""
    return dict(zip(("augment", "regularise", "weight_decay"), row, strict=True))
