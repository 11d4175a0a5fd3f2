"""Small stand-ins with random weights: a Qwen3-VL built from config, its processor, its checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from sdg.training import tiny

torch.set_num_threads(1)  # models this small lose time to a second thread
LIVELINESS = 8
WORDS = ["caption: a red car by the green tree ; find what is wrong with the picture", "the left hand is melted"]


def digit_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges, in which a number is spelt digit by digit, as Qwen's own does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, special=True) for token in tiny.SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image_pad|>"},
        padding_side="left",
    )


def build(digits: bool = False, seed: int = 0, **sizes: int) -> tuple[Qwen3VLForConditionalGeneration, Any]:
    """A model and its processor, small enough for a test; ``digits`` spells numbers digit by digit."""
    processor = tiny.build_processor(WORDS)
    if digits:
        processor = type(processor)(
            image_processor=processor.image_processor,
            tokenizer=digit_tokenizer(),
            chat_template=processor.chat_template,
        )
    small: dict[str, Any] = {"hidden": 64, "vision_layers": 3, "text_layers": 2, "text_mlp": 64, "vision_mlp": 64}
    model = tiny.build_model(processor, seed=seed, **(small | sizes)).eval()
    with torch.no_grad():
        # As they are initialised the layers hardly change their input, and every answer repeats the prompt's last word.
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and ".layers." in name:
                weight.mul_(LIVELINESS)
    return model, processor


def save_checkpoint(folder: Path, **options: Any) -> Path:
    """A stand-in checkpoint folder, as transformers saves one."""
    model, processor = build(**options)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_as_released(folder: Path, **options: Any) -> Path:
    """A stand-in with the files of a Qwen3-VL repository: shards, processor settings apart, nothing of this library."""
    model, processor = build(digits=True, **options)
    model.save_pretrained(folder, max_shard_size="400KB")
    processor.save_pretrained(folder)
    as_qwen_lays_out(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\nbase_model: Qwen/Qwen3-VL-4B-Instruct\n---\n")
    return folder


def as_qwen_lays_out(folder: Path) -> None:
    """Bring a checkpoint's processor into the files that Qwen's own repositories have."""
    images = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    own = {"processor_class": "Qwen3VLProcessor"}
    for name, kind in (("preprocessor", "image_processor"), ("video_preprocessor", "video_processor")):
        kinds = {"image_processor": "Qwen2VLImageProcessorFast", "video_processor": "Qwen3VLVideoProcessor"}
        (folder / f"{name}_config.json").write_text(json.dumps(images | own | {f"{kind}_type": kinds[kind]}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("extra_special_tokens", "image_token", "video_token", "processor_class"):
        tokenizer.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def picture(seed: int = 0, size: tuple[int, int] = (128, 128)) -> Image.Image:
    """A picture of coloured noise in 16-pixel squares, (width, height)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (-(-size[1] // 16), -(-size[0] // 16), 3), dtype=np.uint8)
    return Image.fromarray(np.kron(small, np.ones((16, 16, 1), np.uint8))[: size[1], : size[0]])
