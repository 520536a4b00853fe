"""The tables of public weights as their publishers list them, from which `known` makes its rows.

Facts with their source: names and MiB of Google's files from the README of google-research/vision_transformer (c6de1e5)
and of google-research/big_transfer, from big_vision's `models/vit.py`, and from timm 1.0 (`vision_transformer.py`), as
are timm's; MiB of hub files from the listings of their pages, as is what revision of a repository has a .safetensors,
and their sha256 from the page of each file. `None` is what none of these say. Google states no sha256.
"""

from collections.abc import Mapping

I1K, I21K = 1000, 21843
# README of google-research/vision_transformer: the recommended file of each size, its MiB, the rate of its fine-tuning
AUGREG: Mapping[str, tuple[str, int | None, str | None]] = {
    "Ti/16": ("Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", 37, "0.03"),
    "S/32": ("S_32-i21k-300ep-lr_0.001-aug_none-wd_0.1-do_0.0-sd_0.0", 118, "0.01"),
    "S/16": ("S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0", 115, "0.03"),
    "B/32": ("B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0", 398, "0.01"),
    "B/16": ("B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0", 391, "0.03"),
    "B/8": ("B_8-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0", None, None),
    "L/16": ("L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0", 1243, "0.01"),
    "R50+L/32": ("R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1", 1337, "0.01"),
    "R26+S/32": ("R26_S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0", 170, "0.01"),
    "R+Ti/16": ("R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0", 40, "0.03"),
}
# Others of AugReg that were fine-tuned on ImageNet-1k, by the addresses in timm 1.0
AUGREG_FINETUNED = (
    "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "S_32-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384",
    "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "B_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "B_32-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384",
    "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224",
    "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384",
    "B_8-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224",
    "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_224",
    "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_384",
    "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "R26_S_32-i21k-300ep-lr_0.001-aug_light0-wd_0.03-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.03-res_224",
    "R26_S_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384",
    "R50_L_32-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_224",
    "R50_L_32-i21k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384",
    # trained on ImageNet-1k alone
    *(
        f"{stem}--imagenet2012-steps_20k-lr_0.01-res_{size}"
        for stem in (
            "S_16-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.0-sd_0.0",
            "B_32-i1k-300ep-lr_0.001-aug_medium2-wd_0.1-do_0.1-sd_0.1",
            "B_16-i1k-300ep-lr_0.001-aug_strong2-wd_0.1-do_0.1-sd_0.1",
        )
        for size in (224, 384)
    ),
)
# The files of the ViT paper: pretrained with pre_logits; fine-tuned at 384 pixels, two also at 224.
PAPER = ("ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32", "ViT-H_14", "R50+ViT-B_16")
PAPER_FINETUNED = {
    "ViT-B_16": 384,
    "ViT-B_16-224": 224,
    "ViT-B_32": 384,
    "ViT-L_16": 384,
    "ViT-L_16-224": 224,
    "ViT-L_32": 384,
}
# Trained on ImageNet-1k with SAM (2106.01548).
SAM = ("ViT-S_16", "ViT-B_32", "ViT-B_16", "ViT-L_32", "ViT-L_16")
BIT = ("R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4")
# big_vision's own names of its files (models/vit.py): variant, classes, image size. Those of SigLIP hold a text tower
# beside the image's, whose MAP head is read.
BIG_VISION = (
    *((f"vit_s16_i1k_{epochs}ep", "S/16", I1K, 224) for epochs in (90, 150, 300)),
    ("siglip/webli_en_b16_224_63724782", "B/16", 0, 224),
    ("siglip/webli_en_b16_256_60500360", "B/16", 0, 256),
    ("siglip/webli_en_b16_384_68578854", "B/16", 0, 384),
    ("siglip/webli_en_b16_512_68580893", "B/16", 0, 512),
    ("siglip/webli_en_l16_256_60552751", "L/16", 0, 256),
    ("siglip/webli_en_l16_384_63634585", "L/16", 0, 384),
)
# repository and revision, variant, classes, image size, MiB; with pre_logits or distilled as said
HUGGING_FACE = (
    ("google/vit-base-patch16-224", "B/16", I1K, 224, 330, ""),
    ("google/vit-base-patch16-224-in21k", "B/16", 0, 224, 330, "pre_logits"),
    ("google/vit-base-patch32-224-in21k", "B/32", 0, 224, 336, "pre_logits"),
    ("google/vit-large-patch16-224-in21k@refs/pr/1", "L/16", 0, 224, None, "pre_logits"),
    ("google/vit-large-patch32-224-in21k@refs/pr/1", "L/32", 0, 224, None, "pre_logits"),
    ("google/vit-base-patch16-384", "B/16", I1K, 384, 331, ""),
    ("google/vit-base-patch32-384", "B/32", I1K, 384, 337, ""),
    ("facebook/deit-tiny-patch16-224@refs/pr/3", "Ti/16", I1K, 224, 22, ""),
    ("facebook/deit-small-patch16-224@refs/pr/4", "S/16", I1K, 224, 84, ""),
    ("facebook/deit-base-patch16-224@refs/pr/3", "B/16", I1K, 224, 330, ""),
    ("facebook/deit-base-patch16-384@refs/pr/2", "B/16", I1K, 384, 331, ""),
    ("facebook/deit-tiny-distilled-patch16-224@refs/pr/3", "Ti/16", I1K, 224, 23, "distilled"),
    ("facebook/deit-base-distilled-patch16-224@refs/pr/2", "B/16", I1K, 224, 333, "distilled"),
    ("facebook/deit-base-distilled-patch16-384", "B/16", I1K, 384, 335, "distilled"),
)
# name and tag, variant, classes, MiB; the image size is in the name, and whether it is distilled
TIMM = (
    ("vit_tiny_patch16_224.augreg_in21k", "Ti/16", I21K, 37),
    ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "Ti/16", I1K, 22),
    ("vit_tiny_patch16_384.augreg_in21k_ft_in1k", "Ti/16", I1K, None),
    ("vit_small_patch32_224.augreg_in21k", "S/32", I21K, None),
    ("vit_small_patch32_224.augreg_in21k_ft_in1k", "S/32", I1K, None),
    ("vit_small_patch32_384.augreg_in21k_ft_in1k", "S/32", I1K, None),
    ("vit_small_patch16_224.augreg_in21k", "S/16", I21K, None),
    ("vit_small_patch16_224.augreg_in21k_ft_in1k", "S/16", I1K, None),
    ("vit_small_patch16_384.augreg_in21k_ft_in1k", "S/16", I1K, None),
    ("vit_small_patch16_224.augreg_in1k", "S/16", I1K, None),
    ("vit_small_patch16_384.augreg_in1k", "S/16", I1K, None),
    ("vit_base_patch32_224.augreg_in21k", "B/32", I21K, 398),
    ("vit_base_patch32_224.augreg_in21k_ft_in1k", "B/32", I1K, None),
    ("vit_base_patch32_384.augreg_in21k_ft_in1k", "B/32", I1K, None),
    ("vit_base_patch32_224.augreg_in1k", "B/32", I1K, 337),
    ("vit_base_patch32_384.augreg_in1k", "B/32", I1K, None),
    ("vit_base_patch16_224.augreg_in21k", "B/16", I21K, 391),
    ("vit_base_patch16_224.augreg_in21k_ft_in1k", "B/16", I1K, 330),
    ("vit_base_patch16_384.augreg_in21k_ft_in1k", "B/16", I1K, None),
    ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "B/16", I1K, 330),
    ("vit_base_patch16_224.augreg_in1k", "B/16", I1K, None),
    ("vit_base_patch16_384.augreg_in1k", "B/16", I1K, None),
    ("vit_base_patch8_224.augreg_in21k", "B/8", I21K, None),
    ("vit_base_patch8_224.augreg_in21k_ft_in1k", "B/8", I1K, 330),
    ("vit_base_patch8_224.augreg2_in21k_ft_in1k", "B/8", I1K, 330),
    ("vit_large_patch16_224.augreg_in21k", "L/16", I21K, None),
    ("vit_large_patch16_224.augreg_in21k_ft_in1k", "L/16", I1K, None),
    ("vit_large_patch16_384.augreg_in21k_ft_in1k", "L/16", I1K, None),
    ("vit_tiny_r_s16_p8_224.augreg_in21k", "R+Ti/16", I21K, None),
    ("vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k", "R+Ti/16", I1K, None),
    ("vit_tiny_r_s16_p8_384.augreg_in21k_ft_in1k", "R+Ti/16", I1K, None),
    ("vit_small_r26_s32_224.augreg_in21k", "R26+S/32", I21K, None),
    ("vit_small_r26_s32_224.augreg_in21k_ft_in1k", "R26+S/32", I1K, None),
    ("vit_small_r26_s32_384.augreg_in21k_ft_in1k", "R26+S/32", I1K, None),
    ("vit_large_r50_s32_224.augreg_in21k", "R50+L/32", I21K, None),
    ("vit_large_r50_s32_224.augreg_in21k_ft_in1k", "R50+L/32", I1K, None),
    ("vit_large_r50_s32_384.augreg_in21k_ft_in1k", "R50+L/32", I1K, None),
    ("deit_tiny_patch16_224.fb_in1k", "Ti/16", I1K, 22),
    ("deit_small_distilled_patch16_224.fb_in1k", "S/16", I1K, 86),
)
# As the hub states them on the page of each model.safetensors, at the revision that is named, else at main (the first
# at refs/pr/7, which main has merged)
SHA256: Mapping[str, str] = {
    "google/vit-base-patch16-224": "1cea07110a4a47edc51420b2dda6f3b8b58e7256e8f44b4ea6aa9696162ccb5d",
    "google/vit-base-patch16-224-in21k": "fd4e1169c7aa6c2dbfa8a6448be13b35abc0ee256190857c90009d12c094619b",
    "google/vit-base-patch32-224-in21k": "82d6433fcb417924480236806bd22e3bc9b21f578df839cae78d79e24db61c1d",
    "google/vit-large-patch16-224-in21k@refs/pr/1": "bb92f203dc94f76fa1eb2cd9e19016ab0cd8fef300da5cd2bf350800ef2a91b9",
    "google/vit-large-patch32-224-in21k@refs/pr/1": "305888200ef5f4be58ab84ce2295f94188e035d720fb2faea1b0418fee848225",
    "facebook/deit-base-patch16-224@refs/pr/3": "d87f1ddbbfd353c7c81705f0f223093bd1e61633ed21cd25aac0919bdd12b3a8",
    "facebook/deit-base-patch16-384@refs/pr/2": "dd4f1594f3e08492de69d37380e26faa82f873b3aded1c6e5fccef4d0c1dc241",
    "facebook/deit-base-distilled-patch16-224@refs/pr/2": (
        "15667e351ef635d1b6450f400cd3462f4287f0cbd7e1e3be9826db942ceeb69d"
    ),
    "timm/deit_tiny_patch16_224.fb_in1k": "21d4764d94f6c3ffdb6da3581115a0a1ee2d505537d96883b540e54766407c9e",
}
