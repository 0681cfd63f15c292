"""The file of masks, and masks cropped as their images are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workflow_scripts.common.errors import InputError
from workflow_scripts.common.squares import square
from workflow_scripts.downstream.segmentation.masks import (
    Mask,
    encode_mask,
    exact_squares,
    mask_square,
    open_mask,
    read_masks,
    write_masks,
)


def blob(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((x / width - 0.55) / 0.3) ** 2 + ((y / height - 0.4) / 0.2) ** 2 < 1


def as_image(mask: np.ndarray) -> Image.Image:
    return Image.fromarray((mask * 255).astype(np.uint8))


@settings(max_examples=30, deadline=None)
@given(st.integers(40, 130), st.integers(40, 130), st.integers(16, 48))
def test_a_mask_is_cut_exactly_as_its_image(width: int, height: int, size: int):
    image = as_image(blob(width, height))
    cut = mask_square(image, (width, height), size)
    assert (cut == (square(image, size, squash=False) >= 128)).all()


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (256, 256)])
def test_a_mask_of_the_labellers_square_covers_the_same_place(width: int, height: int):
    squashed = as_image(blob(512, 512))  # the same ellipse, in relative places
    mask = mask_square(squashed, (width, height), 64)
    expected = mask_square(as_image(blob(width, height)), (width, height), 64)
    assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) > 0.98
    if width != height:  # without the crop the mask would be displaced
        wrong = mask_square(squashed, (512, 512), 64)
        assert 2 * (wrong & expected).sum() / (wrong.sum() + expected.sum()) < 0.95


def test_a_file_of_masks_is_private_and_read_as_it_was_written(tmp_path):
    path = tmp_path / "masks.parquet"
    drawn = [blob(20, 30), np.zeros((30, 20), bool)]
    rows = [Mask(name, encode_mask(m), (20, 30)) for name, m in zip("ab", drawn, strict=True)]
    write_masks(path, rows, {"model": "real"})
    assert path.stat().st_mode & 0o777 == 0o600
    masks = read_masks(path)
    assert masks.run == {"model": "real"}
    assert list(masks.by_id) == ["a", "b"]
    for row, mask in zip(masks.by_id.values(), drawn, strict=True):
        assert row.image_size == (20, 30)
        assert (np.asarray(open_mask(row.png, "x")) == np.asarray(as_image(mask))).all()
    assert masks.squares(["b", "a"], 16, 2, "x").any(axis=(1, 2)).tolist() == [False, True]
    with pytest.raises(InputError, match="without a mask, first 'c'"):
        masks.squares(["a", "c"], 16, 1, "the file")


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    path = tmp_path / "masks.parquet"
    with pytest.raises(InputError, match="cannot read masks"):
        read_masks(path)
    write_masks(path, [Mask("a", b"", (1, 1))], {})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot read masks"):
        read_masks(path)
    write_masks(path, [Mask("a", b"no image", (1, 1))], {})
    with pytest.raises(InputError, match=r"cannot decode a mask[\s\S]*the file \(a\)"):
        read_masks(path).squares(["a"], 8, 1, "the file")


def test_masks_drawn_by_hand_may_be_few_but_fit(tmp_path):
    images = [Mask(name, b"", (40, 60)) for name in "abc"]
    labels = blob(40, 60).astype(np.uint8) * 2  # the world's 1 and 2, not 255
    Image.fromarray(labels).save(tmp_path / "b.png")
    annotated, squares = exact_squares(tmp_path, images, 16, 2)
    assert annotated.tolist() == [False, True, False]
    assert (squares[0] == mask_square(as_image(blob(40, 60)), (40, 60), 16)).all()
    Image.fromarray(labels.T).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"60 x 40 pixels, but its radiograph has 40 x 60"):
        exact_squares(tmp_path, images, 16, 1)
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="cannot decode a mask"):
        exact_squares(tmp_path, images, 16, 1)
    with pytest.raises(InputError, match="no mask for any of the 1 test images"):
        exact_squares(tmp_path, images[:1], 16, 1)


def test_colour_and_alpha_masks_count_what_is_drawn(tmp_path):
    drawn = blob(30, 30)
    rgba = np.zeros((30, 30, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[drawn, 0] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert (np.asarray(open_mask(tmp_path / "a.png", "a")) == np.asarray(as_image(drawn))).all()
