"""What people would otherwise run, as small scripts: ``python -m benchmarks.peers KIND MODEL [LABEL ...]``.

Each loads its model, then names one video after another: paths come on standard input, a JSON record a line goes
out. ``load`` only imports and loads, which is what no script can do without. They run on the device in BENCH_DEVICE;
on a GPU under autocast to bf16, as open_clip's README does it.
"""

from __future__ import annotations

import json
import os
import sys

FRAMES = 8
DEVICE = os.environ.get("BENCH_DEVICE", "cpu")


def sample(path: str):
    """Eight frames (T, H, W, 3) from the middles of equal parts, by decord as in its own documentation."""
    import decord

    reader = decord.VideoReader(path)
    step = len(reader) / FRAMES
    return reader.get_batch([int(step * (k + 0.5)) for k in range(FRAMES)]).asnumpy()


def load_open_clip(folder: str):
    """open_clip's model, its transform and its tokenizer, in fp32."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.to(DEVICE).eval(), transform, open_clip.get_tokenizer("ViT-B-16")


def plain_loop(folder: str, labels: list[str]) -> None:
    """decord, open_clip and its PIL transform, fp32, a video at a time: frames averaged, compared with the labels."""
    import torch
    from PIL import Image
    from torch.nn import functional as F

    model, transform, tokenizer = load_open_clip(folder)
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE != "cpu"):
        tokens = tokenizer([f"a video of {label}" for label in labels]).to(DEVICE)
        text = F.normalize(model.encode_text(tokens), dim=-1)
        for line in sys.stdin:
            frames = torch.stack([transform(Image.fromarray(frame)) for frame in sample(line.strip())])
            video = F.normalize(model.encode_image(frames.to(DEVICE)).mean(dim=0), dim=-1)
            answer((100 * video @ text.T).softmax(dim=-1), labels, line)


def xclip(folder: str, labels: list[str]) -> None:
    """transformers' X-CLIP with its own processor. Token ids come from open_clip: the vocabulary is the same."""
    import open_clip
    import torch
    from transformers import VideoMAEImageProcessor, XCLIPModel

    model = XCLIPModel.from_pretrained(folder).to(DEVICE).eval()
    processor = VideoMAEImageProcessor.from_pretrained(folder)
    tokens = open_clip.get_tokenizer("ViT-B-16")(labels).to(DEVICE)
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE != "cpu"):
        for line in sys.stdin:
            pixels = processor(list(sample(line.strip())), return_tensors="pt")["pixel_values"]
            found = model(input_ids=tokens, pixel_values=pixels.to(DEVICE))
            answer(found.logits_per_video[0].softmax(dim=-1), labels, line)


def answer(score, labels: list[str], line: str) -> None:
    """One record on standard output."""
    best = int(score.argmax())
    print(json.dumps({"video": line.strip(), "label": labels[best], "score": float(score[best])}), flush=True)


if __name__ == "__main__":
    kind, folder, *labels = sys.argv[1:]
    if kind == "load":
        import torch  # noqa: F401

        load_open_clip(folder)
        print("{}", flush=True)
    else:
        {"plain": plain_loop, "xclip": xclip}[kind](folder, labels)
