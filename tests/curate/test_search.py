"""Before a set is written: no caption, no id, no real image of the cohort."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from workflow_scripts.common.errors import InputError
from workflow_scripts.curate.search import check_images, check_texts, pixels_digest

IDS = {"p10000032", "02aa804e-bde0afdd-112c0b34"}
CAPTION = "Small left pleural effusion with adjacent basal atelectasis, unchanged"


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32), np.uint8))


def test_a_planted_caption_in_the_prompts_is_refused_and_not_repeated():
    with pytest.raises(InputError, match="caption") as error:
        check_texts([("the column of prompts", CAPTION.upper())], IDS, [CAPTION])
    assert "effusion" not in str(error.value)


def test_an_id_in_a_file_name_is_refused():
    with pytest.raises(InputError, match="1 id"):
        check_texts([("a file name", "sana-p10000032.png")], IDS, [CAPTION])


def test_other_texts_pass():
    check_texts(
        [("a file name", "sana-000001.png"), ("prompts", "A healthy chest.")], IDS, [CAPTION]
    )


@pytest.mark.parametrize(
    "change", [lambda x: x, ImageOps.mirror, lambda x: x.point(lambda v: v ^ 1)]
)
def test_a_training_radiograph_that_no_limit_refused_is_refused(change):
    with pytest.raises(InputError, match="1 real image"):
        check_images([("a.png", change(picture(0)), [picture(1), picture(0)])], set())


def test_a_planted_image_is_refused_by_its_digest():
    with pytest.raises(InputError, match=r"a\.png"):
        check_images([("a.png", picture(0), [])], {pixels_digest(picture(0))})


def test_other_images_pass():
    check_images([("a.png", picture(0), [picture(1)])], {pixels_digest(picture(2))})
