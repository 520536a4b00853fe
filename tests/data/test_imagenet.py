"""The order of ImageNet's classes, which every published head of 1,000 classes follows."""

from transformer_jax.data import imagenet


def test_the_ids_are_those_of_wordnet_in_their_usual_order():
    found = imagenet.wnids()
    assert len(found) == len(set(found)) == imagenet.CLASSES and list(found) == sorted(found)
    # tench, goldfish, golden retriever and toilet tissue (the labels of timm's and Hugging Face's heads)
    assert [found[i] for i in (0, 1, 207, 999)] == ["n01440764", "n01443537", "n02099601", "n15075141"]
