"""The pixels a model sees are those of open_clip's own transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zsar_cli.video.decode import read_frames
from zsar_cli.video.sampling import segment_indices
from zsar_cli.video.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    Augmentation,
    Preprocess,
    augment_colour,
    crop_box_and_resize,
    normalise,
    random_crop_box,
    resize_and_crop,
)


def their_steps(preprocess: Preprocess):
    from open_clip.transform import image_transform

    return image_transform(
        preprocess.size,
        is_train=False,
        mean=preprocess.mean,
        std=preprocess.std,
        resize_mode=preprocess.resize_mode,
        interpolation=preprocess.interpolation,
        fill_color=preprocess.fill_color,
    )


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_pixels_are_bit_identical_to_open_clips(mode, interpolation, size):
    preprocess = Preprocess(size, interpolation=interpolation, resize_mode=mode, fill_color=7)
    theirs = their_steps(preprocess)
    for height, width in ((90, 120), (121, 67), (64, 64), (31, 33), (200, 41), (65, 64), (48, 80)):
        frame = noise(height, width)
        expected = Image.fromarray(frame)
        for step in theirs.transforms[:-2]:  # all but ToTensor and Normalize
            expected = step(expected)
        assert np.array_equal(resize_and_crop(frame, preprocess), np.asarray(expected)), (height, width)
        whole = theirs(Image.fromarray(frame))
        ours = normalise(torch.from_numpy(resize_and_crop(frame, preprocess)), preprocess)
        assert torch.allclose(ours, whole, atol=1e-6)


def test_embeddings_of_a_real_clip_match(shared):
    import open_clip

    torch.manual_seed(0)
    tower = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=32, vision_cfg=tower, text_cfg=text).eval()
    preprocess = Preprocess((64, 64))
    theirs = their_steps(preprocess)
    path = shared / "videos" / "arm_wrestling.mp4"
    video = read_frames(path, lambda count: segment_indices(count, 8).tolist())
    reference = torch.stack([theirs(Image.fromarray(frame)) for frame in video.frames])
    ours = normalise(torch.from_numpy(resize_and_crop(video.frames, preprocess)), preprocess)
    with torch.no_grad():
        cosine = torch.cosine_similarity(model.encode_image(ours), model.encode_image(reference))
    assert cosine.min() >= 0.999


def test_three_crops_lie_along_the_longer_side():
    preprocess = Preprocess((32, 32))
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (32, 96, 3))
    left, centre, right = resize_and_crop(ramp, preprocess, crops=3)
    assert (left[0, 0, 0], centre[0, 0, 0], right[0, 0, 0]) == (0, 32, 64)
    assert np.array_equal(resize_and_crop(ramp, preprocess), centre)
    top, _, bottom = resize_and_crop(ramp.swapaxes(0, 1), preprocess, crops=3)
    assert (top[0, 0, 0], bottom[0, 0, 0]) == (0, 64)
    assert resize_and_crop(np.stack([ramp] * 5), preprocess, crops=3).shape == (3, 5, 32, 32, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(["shortest", "squash", "longest"]),
    st.sampled_from([1, 3]),
)
def test_any_frame_size_gives_the_models_size(height, width, mode, crops):
    pixels = resize_and_crop(noise(height, width), Preprocess((24, 40), resize_mode=mode), crops=crops)
    assert pixels.shape == ((24, 40, 3) if crops == 1 else (3, 24, 40, 3))


def test_a_very_long_strip_is_not_blown_up():
    pixels = resize_and_crop(noise(1, 60_000), Preprocess((224, 224)))
    assert pixels.shape == (224, 224, 3)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32))
def test_random_boxes_lie_inside_the_frame(height, width, seed):
    left, top, right, bottom = random_crop_box(height, width, Augmentation(), np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_flip_mirrors():
    frame, preprocess = noise(40, 40), Preprocess((16, 16))
    straight = crop_box_and_resize(frame, (4, 4, 36, 36), False, preprocess)
    assert np.array_equal(crop_box_and_resize(frame, (4, 4, 36, 36), True, preprocess), straight[:, ::-1])


def test_colour_changes_are_one_draw_a_clip_and_reproducible():
    clip = torch.from_numpy(noise(8, 8)).expand(2, 3, 8, 8, 3).contiguous()
    once = augment_colour(clip, Augmentation(), torch.Generator().manual_seed(1))
    again = augment_colour(clip, Augmentation(), torch.Generator().manual_seed(1))
    assert once.shape == clip.shape
    assert once.dtype == torch.uint8
    assert torch.equal(once, again)
    assert torch.equal(once[0, 0], once[0, 2])  # frames of one clip change together
    assert not torch.equal(once[0], once[1])  # clips do not
    untouched = augment_colour(clip, Augmentation(colour_jitter=0), torch.Generator().manual_seed(1))
    assert torch.equal(untouched, clip)
    grey = augment_colour(clip, Augmentation(colour_jitter=0, grey=1), torch.Generator().manual_seed(1))
    assert torch.equal(grey[..., 0], grey[..., 1])


def test_normalise_keeps_leading_dimensions_and_dtype():
    pixels = torch.zeros(2, 5, 8, 8, 3, dtype=torch.uint8)
    normal = normalise(pixels, Preprocess((8, 8)), torch.bfloat16)
    assert normal.shape == (2, 5, 3, 8, 8)
    assert normal.dtype == torch.bfloat16
    assert normal[0, 0, :, 0, 0].tolist() == pytest.approx(
        [-mean / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)], rel=1e-2
    )


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (120, 90), (256, 256), (1080, 1920)])
def test_larger_is_the_short_side_to_eight_sevenths_between_four_pixels_and_the_centre(
    size: tuple[int, int],
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    preprocess = Preprocess(size=(56, 56), interpolation="linear", resize_mode="larger")
    scaled = [int(64 * side / min(size) + 0.5) for side in size]
    image = torch.from_numpy(frame).movedim(-1, 0)[None].float()
    whole = torch.nn.functional.interpolate(image, scaled, mode="bilinear", align_corners=False)[0].movedim(
        0, -1
    )
    top, left = ((side - 56) // 2 for side in scaled)
    wanted = whole[top : top + 56, left : left + 56].numpy()
    assert np.abs(resize_and_crop(frame, preprocess).astype(float) - wanted).max() <= 0.6
