"""The pixels a model sees are those of open_clip's own transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zsar_cli.video.augment import Cutter, change_colours, draw_colours, fit
from zsar_cli.video.decode import read_frames
from zsar_cli.video.sampling import segment_indices
from zsar_cli.video.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    Augmentation,
    Preprocess,
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


def cut(frame: np.ndarray, augmentation: Augmentation, preprocess: Preprocess, seed: int = 3) -> np.ndarray:
    return Cutter(augmentation, preprocess, seed)(frame)[0]


def pillows(
    frame: np.ndarray, augmentation: Augmentation, preprocess: Preprocess, seed: int = 3
) -> np.ndarray:
    """The same box out of the same frame, resized by Pillow."""
    box = random_crop_box(*frame.shape[:2], augmentation, np.random.default_rng([seed, 1]))
    return np.asarray(
        Image.fromarray(frame).crop(box).resize(preprocess.size[::-1], Image.Resampling.BICUBIC)
    )


def smooth(height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(noise(7, 9)).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("times", [2, 12])  # cut here and resized where the model is, or resized here
def test_a_training_crop_is_pillows_wherever_it_is_resized(times):
    frame, preprocess, still = smooth(40 * times, 60 * times), Preprocess((32, 48)), Augmentation(flip=0)
    crop = cut(frame, still, preprocess)
    assert (crop.shape[:2] == preprocess.size) is (times == 12)
    done = fit(torch.tensor(crop)[None], preprocess)[0].numpy().astype(int)
    assert done.shape == (32, 48, 3)
    assert abs(done - pillows(frame, still, preprocess)).max() <= 1
    mirrored = cut(frame, Augmentation(flip=1), preprocess)
    assert np.array_equal(mirrored, crop[:, ::-1])


def test_frames_of_a_stream_that_changes_its_size_half_way_are_cut_to_one_size():
    cutter = Cutter(Augmentation(), Preprocess((32, 32)), 0)
    first, second = cutter(noise(60, 80)), cutter(noise(90, 50))
    assert first.shape == second.shape


def test_colours_change_as_torchvision_changes_them_one_draw_a_clip():
    from torchvision.transforms.v2 import functional as tv

    clips = (
        torch.from_numpy(np.stack([noise(9, 8, n) for n in range(6)]))
        .view(6, 1, 9, 8, 3)
        .expand(6, 2, 9, 8, 3)
    )
    colours = draw_colours(Augmentation(colour_jitter=0.6, grey=0.5), range(6))
    assert colours is not None
    assert set(colours[:, 3].tolist()) == {0, 1}  # some lose all colour
    assert torch.equal(colours[4:], draw_colours(Augmentation(colour_jitter=0.6, grey=0.5), [4, 5]))
    found = change_colours(clips, colours)
    for clip, (brightness, contrast, saturation, grey), got in zip(
        clips, colours.tolist(), found, strict=True
    ):
        expected = tv.adjust_brightness(clip.movedim(-1, -3), brightness)
        expected = tv.adjust_saturation(tv.adjust_contrast(expected, contrast), saturation)
        expected = tv.rgb_to_grayscale(expected, num_output_channels=3) if grey else expected
        assert (got - expected.movedim(-3, -1)).abs().max() <= 1
    assert torch.equal(change_colours(clips[4:], colours[4:]), found[4:])
    assert draw_colours(Augmentation(colour_jitter=0), [1]) is None


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
