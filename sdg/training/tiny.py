"""A Qwen3-VL small enough for two CPU cores, built from nothing but a list of words.

Architecture and folder layout are Qwen3-VL's own, so that what is trained here loads with ``AutoProcessor`` and
``AutoModelForImageTextToText`` anywhere. Three things make it learn to point at places in hours instead of days: a
number is one token, number tokens start on a smooth curve, and so do the positions of the picture's patches.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    PaddleOCRVLProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from sdg.boxes import GRID

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen3-VL's special tokens that a detector meets."""

BOX_OPEN = '{"box_2d": ['
SKELETON = (
    "<think>",
    "</think>",
    "</think>\n<answer>[",
    "</think>\n<answer>[]</answer>",
    "<answer>",
    "[]",
    "</answer>",
    BOX_OPEN,
    ", ",
    '], "label": "',
    "artifact",
    "misalignment",
    '", "description": "',
    '", "importance": ',
    "}, ",
    "}]</answer>",
    "user\n",
    "assistant\n",
    "caption: ",
    "no caption",
    "Step 1: ",
    ".\nStep 2: ",
    ".\nStep 3: ",
    "; ",
    " image-left",
    " image-centre",
    " image-right",
)
"""The fixed pieces of a response and a prompt, each one token: an answer object costs 14 tokens and its words."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' or 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_WORD = r" ?\p{L}+(?:[-'’]\p{L}+)*"
_REST = r"1000|\p{N}{1,3}|" + _WORD + r"| ?[^\s\p{L}\p{N}]|\s"


def _splitter(pieces: Iterable[str]) -> pre_tokenizers.PreTokenizer:
    fixed = (re.escape(piece) for piece in sorted(pieces, key=len, reverse=True))
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("|".join([*fixed, _REST])), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def build_tokenizer(texts: Iterable[str], pieces: Iterable[str] = (), max_words: int = 4000) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer in which the words of ``texts`` are one token each, and any other text is spelt in bytes.

    Args:
        texts: words or running text; each word becomes a token, with and without a leading space.
        pieces: further fixed strings, such as the headings of a think text, that become one token each.
        max_words: the most frequent words that get a token.

    Returns:
        a tokenizer with ``decode(encode(text)) == text`` for any text; 0..1000 and each piece of the response's
        skeleton are single tokens.
    """
    fixed = tuple(dict.fromkeys([*SKELETON, *pieces]))
    splitter = _splitter(fixed)
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    space = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(" ")[0][0]
    bare = Counter[str]()
    for piece, count in counts.items():
        bare[piece.removeprefix(space)] += count
    words = [word for word, _ in sorted(bare.items(), key=lambda item: (-item[1], item[0])) if word][:max_words]

    def encoded(text: str) -> str:
        return "".join(piece for piece, _ in splitter.pre_tokenize_str(text))

    vocabulary = dict.fromkeys([*bytes_, *(str(n) for n in range(GRID + 1)), *(encoded(p) for p in fixed)])
    vocabulary.update(dict.fromkeys(form for word in words for form in (word, space + word)))
    ids = {token: index for index, token in enumerate(vocabulary)}
    backend = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        padding_side="left",
    )


def build_processor(
    texts: Iterable[str], *, pieces: Iterable[str] = (), side: int = 128, patch_size: int = 8
) -> PaddleOCRVLProcessor:
    """A processor with its own small tokenizer; every picture is brought to about ``side`` x ``side`` pixels.

    ``Qwen3VLProcessor`` handles videos too and therefore cannot be made without torchvision. For a picture and a text,
    transformers' ``PaddleOCRVLProcessor`` with Qwen's image processor gives the same tensors and needs Pillow only.

    Args:
        texts: words or running text for :func:`build_tokenizer`.
        pieces: further fixed strings for :func:`build_tokenizer`.
        side: pictures keep their aspect ratio and get about side*side pixels.
        patch_size: pixels a patch; 2x2 patches are merged into one token, so 128 and 8 make 64 tokens a picture.
    """
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": side * side, "longest_edge": side * side},
        patch_size=patch_size,
        merge_size=2,
        temporal_patch_size=1,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return PaddleOCRVLProcessor(
        image_processor=images, tokenizer=build_tokenizer(texts, pieces), chat_template=CHAT_TEMPLATE
    )


def smooth_curve(values: Tensor, dim: int, longest: float, shortest: float) -> Tensor:
    """sin and cos of ``values`` at wavelengths from ``longest`` to ``shortest``.

    Args:
        values: (n,) in the unit of the wavelengths.
        dim: even number of features.

    Returns:
        (n, dim) in -1..1: near values have near rows.
    """
    ratios = torch.linspace(0, 1, dim // 2, dtype=torch.float64)
    wavelengths = longest * (shortest / longest) ** ratios
    angles = values.double()[:, None] * (2 * math.pi / wavelengths)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def number_ids(tokenizer: Any) -> Tensor | None:
    """Token ids of the numbers 0..1000, (1001,), or None for a tokenizer that spells numbers in several tokens."""
    ids = tokenizer.convert_tokens_to_ids([str(n) for n in range(GRID + 1)])
    known = [i for i in ids if i is not None and i != tokenizer.unk_token_id]
    return torch.tensor(ids) if len(known) == len(ids) else None


def build_config(processor: Any, **sizes: int) -> Qwen3VLConfig:
    """The configuration of a small Qwen3-VL that fits ``processor``.

    Args:
        sizes: ``hidden`` (192), ``vision_layers`` (5), ``text_layers`` (4), ``heads`` (4), ``text_mlp`` (512) and
            ``vision_mlp`` (768) where another size than the default is wanted.
    """
    known = {"hidden": 192, "vision_layers": 5, "text_layers": 4, "heads": 4, "text_mlp": 512, "vision_mlp": 768}
    if unknown := set(sizes) - set(known):
        raise ValueError(f"{sorted(unknown)} are no sizes of the model; choose among {sorted(known)}")
    s = known | sizes
    tokenizer, images = processor.tokenizer, processor.image_processor
    token = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    head_dim = s["hidden"] // s["heads"]
    third = head_dim // 6
    side = round(math.sqrt(images.size["longest_edge"])) // images.patch_size
    return Qwen3VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 32) * 32,
            "hidden_size": s["hidden"],
            "intermediate_size": s["text_mlp"],
            "num_hidden_layers": s["text_layers"],
            "num_attention_heads": s["heads"],
            "num_key_value_heads": s["heads"],
            "head_dim": head_dim,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [head_dim // 2 - 2 * third, third, third],
                "mrope_interleaved": True,
            },
            "pad_token_id": token["<|endoftext|>"],
            "eos_token_id": token["<|im_end|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": s["vision_layers"],
            "hidden_size": s["hidden"],
            "intermediate_size": s["vision_mlp"],
            "num_heads": s["heads"],
            "hidden_act": "gelu",  # the tanh form is eight times slower in bfloat16 on a CPU
            "patch_size": images.patch_size,
            "spatial_merge_size": images.merge_size,
            "temporal_patch_size": images.temporal_patch_size,
            "out_hidden_size": s["hidden"],
            "num_position_embeddings": side * side,
            "deepstack_visual_indexes": [s["vision_layers"] // 3, 2 * s["vision_layers"] // 3],
        },
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
        dtype="float32",
    )


@torch.no_grad()
def build_model(processor: Any, seed: int = 0, **sizes: int) -> Qwen3VLForConditionalGeneration:
    """A small Qwen3-VL with new weights, float32, that fits ``processor``.

    Args:
        processor: from :func:`build_processor`.
        seed: of the new weights.
        **sizes: as :func:`build_config`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(build_config(processor, **sizes))
    embedding: Any = model.get_input_embeddings().weight
    hidden = embedding.shape[1]
    ids = number_ids(processor.tokenizer)
    if ids is not None:
        curve = smooth_curve(torch.arange(GRID + 1), hidden, longest=4 * GRID, shortest=GRID / 40)
        embedding[ids] = 0.5 * embedding[ids] + math.sqrt(2) * 0.02 * curve
    position: Any = model.model.visual.pos_embed.weight
    side = math.isqrt(position.shape[0])
    axis = smooth_curve(torch.arange(side), position.shape[1] // 2, longest=4 * side, shortest=3)
    rows, columns = axis.repeat_interleave(side, 0), axis.repeat(side, 1)
    position.copy_(0.3 * torch.cat([rows, columns], dim=1))
    generation = model.generation_config
    generation.eos_token_id = processor.tokenizer.eos_token_id
    generation.pad_token_id = processor.tokenizer.pad_token_id
    generation.do_sample = False
    return model
