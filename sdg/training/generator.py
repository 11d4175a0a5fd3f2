"""A tiny text-to-image pipeline for the microworld: Stable Diffusion 3's parts at a thousandth of the size.

Every part is a class of diffusers or transformers, so ``DiffusionPipeline.from_pretrained`` loads the result. Two
modules turn the parts into losses: :class:`Reconstruction` for the autoencoder, :class:`Flow` for what draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from sdg.defects import DefectSet
from sdg.engines.pipelines import pipeline_folder
from sdg.hub import HubOptions
from sdg.records import Record
from sdg.training.dense import DenseHeads, DenseVocabulary, dense_labels, dense_loss

SIZE = 128
"""Side of the pictures in pixels."""
MOST_OBJECTS = 2
"""Objects in a caption that it is trained to draw: more want more than two cores give."""
CHANNELS = 8
TEXT = 96
"""Width of a text token and of the pooled text: that of the first two encoders together."""
LENGTH = 36
"""Tokens of a caption, start and end included."""
SHORT, LONG = 1, 256
"""Tokens of the third text encoder: as this pipeline is meant to be called (``max_sequence_length=1``: the first two
say all), and as it is called where nobody says so."""


def find_pipeline(name_or_path: str) -> str:
    """The folder of an embedded or a local pipeline; one of the Hub is fetched first.

    Raises:
        CheckpointError: saying what is the matter and what to do.
    """
    return str(pipeline_folder(name_or_path, HubOptions()))


def build_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of ``words`` is one token; others are spelt in printable ASCII characters."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *characters, *(c + "</w>" for c in characters)]
    merges: dict[tuple[str, str], int] = {}
    for word in sorted({word.lower() for word in words}):
        pieces = _merged([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = len(merges)
            vocabulary.append(pieces[0] + pieces[1])
            pieces = _merged(pieces, merges)
    table = {token: index for index, token in enumerate(dict.fromkeys(vocabulary))}
    rules: Any = list(merges)  # pairs, whatever its annotation says
    return CLIPTokenizer(vocab=table, merges=rules, model_max_length=LENGTH)


def build_third_tokenizer(words: Iterable[str]) -> T5Tokenizer:
    """A T5 tokenizer in which each of ``words`` is one token; others are spelt in printable ASCII characters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -20.0)]
    pieces += [("\u2581" + word, -1.0) for word in sorted({word.lower() for word in words})]
    pieces += [(chr(code), -10.0) for code in range(33, 127)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LONG)


def _merged(pieces: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """The pieces of a word after byte-pair encoding: of the pairs that merge, the oldest rule goes first."""
    while True:
        ranked = [(merges[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in merges]
        if not ranked:
            return pieces
        at = min(ranked)[1]
        pieces = [*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :]]


def build_pipeline(words: Iterable[str], seed: int = 0) -> StableDiffusion3Pipeline:
    """The pipeline with random weights, float32, 4.7 million parameters.

    Args:
        words: that captions are made of.
        seed: of the weights.
    """
    words = list(words)
    tokenizer, third_tokenizer = build_tokenizer(words), build_third_tokenizer(words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The pipeline reads the last layer but one: the first encoder's words in context, the second's bare words.
        context, bare = _text_encoder(tokenizer, 64, layers=3), _text_encoder(tokenizer, 32, layers=1)
        third = T5EncoderModel(
            T5Config(
                vocab_size=len(third_tokenizer),
                d_model=TEXT,
                d_kv=16,
                d_ff=64,
                num_layers=1,
                num_heads=2,
                dropout_rate=0.0,
                is_encoder_decoder=False,
                use_cache=False,
                pad_token_id=third_tokenizer.pad_token_id,
                eos_token_id=third_tokenizer.eos_token_id,
            )
        )
        vae = AutoencoderTiny(
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            # Whole pictures pass through single convolutions only: two cores have no time for more.
            num_encoder_blocks=(0, 1, 2, 2),
            num_decoder_blocks=(2, 2, 2, 0),
            latent_channels=CHANNELS,
        )
        transformer = SD3Transformer2DModel(
            sample_size=SIZE // 8,
            patch_size=2,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=6,
            attention_head_dim=34,
            num_attention_heads=4,
            joint_attention_dim=TEXT,
            caption_projection_dim=136,
            pooled_projection_dim=TEXT,
            pos_embed_max_size=16,
            qk_norm="rms_norm",
        )
    _start_at_identity(transformer)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=context,
        tokenizer=tokenizer,
        text_encoder_2=bare,
        tokenizer_2=tokenizer,
        text_encoder_3=third,
        tokenizer_3=third_tokenizer,
    )


def _text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def _start_at_identity(transformer: Any) -> None:
    """Modulations and the output start at zero (adaLN-Zero), so that every block begins as the identity."""
    for module in transformer.modules():
        linear = getattr(module, "linear", None)
        if isinstance(linear, nn.Linear) and type(module).__name__.startswith("AdaLayerNorm"):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)


def token_ids(pipeline: Any, captions: Sequence[str]) -> dict[str, Tensor]:
    """``input_ids`` for the first two encoders and ``third_ids``, both (N, LENGTH), as the pipeline makes them."""
    options = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
    ids, third = (
        tokenizer(list(captions), **options)["input_ids"] for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_3)
    )
    return {"input_ids": ids, "third_ids": third}


class Reconstruction(nn.Module):
    """The autoencoder's loss: absolute error of pixels and of their differences to the right and downwards.

    A little noise on the latents teaches the decoder to forgive what a generator gets slightly wrong.

    Args:
        vae: the autoencoder.
        noise: std of the noise on latents.
    """

    def __init__(self, vae: Any, noise: float = 0.05) -> None:
        super().__init__()
        self.vae, self.noise = vae, noise

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Loss of pictures in [-1, 1], (B, 3, H, W)."""
        # Convolutions of a CPU are half as fast again on pictures that hold their channels together.
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        latents = self.vae.encode(pixel_values).latents
        decoded = self.vae.decode(latents + self.noise * torch.randn_like(latents)).sample.float()
        wrong = decoded - pixel_values
        loss = wrong.abs().mean() + wrong.diff(dim=-1).abs().mean() + wrong.diff(dim=-2).abs().mean()
        # The decoder squashes its input at 3: latents are kept where that does no harm.
        return {"loss": loss + 0.05 * F.relu(latents.float().abs() - 1.5).square().mean()}


def save(pipeline: Any, folder: str | Path) -> None:
    """Write a pipeline with bfloat16 weights that a plain load gives in float32, as diffusers gives its own parts.

    transformers would load text encoders in the precision in which they were saved, and the pipeline would not run.
    Where it was loaded from is left out.
    """
    pipeline.to(torch.bfloat16).save_pretrained(folder)
    for path in (Path(folder, "model_index.json"), *Path(folder).glob("*/config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def encode(vae: Any, pictures: Tensor, batch_size: int = 64) -> Tensor:
    """Raw latents of pictures in [-1, 1]; (N, CHANNELS, H / 8, W / 8) in float16."""
    return torch.cat([vae.encode(part).latents.half() for part in pictures.split(batch_size)]).contiguous()


def normalise(vae: Any, latents: Tensor) -> None:
    """Set ``scaling_factor`` and ``shift_factor`` so that the pipeline's latents have mean 0 and std 1."""
    mean, std = float(latents.float().mean()), float(latents.float().std())
    vae.register_to_config(scaling_factor=1 / std, shift_factor=mean)
    vae.scaling_factor, vae.shift_factor = 1 / std, mean


def object_labels(
    pictures: Sequence[Sequence[Mapping[str, Any]]], vocabulary: DenseVocabulary, side: int = SIZE // 16
) -> dict[str, Tensor]:
    """What is to be seen at each of the transformer's side x side tokens: labels of the heads of :class:`Flow`.

    Args:
        pictures: the objects of each, as :class:`sdg.records.Record` has them.
        vocabulary: names of the classes.
        side: tokens of a row, and rows.

    Returns:
        dense_kind and dense_colour (N, side^2), dense_object_box (N, side^2, 4), as of
        :func:`sdg.training.dense.dense_labels`.
    """
    unseen = Image.new("RGB", (1, 1))
    records = [Record(unseen, "", DefectSet(()), objects=tuple(objects)) for objects in pictures]
    labels = dense_labels(records, torch.tensor([[1, side, side]] * len(records)), vocabulary)
    names = ("dense_kind", "dense_colour", "dense_object_box")
    return {name: labels[name].unflatten(0, (len(records), side * side)) for name in names}


class Flow(nn.Module):
    """Flow matching of a pipeline: the squared error of the velocity, at logit-normal noise levels.

    Shapes come late in so small a model. Heads on the tokens halfway through the transformer, which are thrown away
    after training, hasten them: from noisy latents and caption they tell what is there, its colour and its box.

    Args:
        pipeline: whose transformer and text encoders are trained.
        vocabulary: names of what the heads tell apart; None trains without them.
        dense_weight: of the heads' loss.
        uncaptioned: share of captions replaced by the empty one, for guidance.
        long: share of batches in which the third encoder sees as many tokens as in a call that does not say how many.
    """

    no_input_ids: Tensor
    no_third_ids: Tensor

    def __init__(
        self,
        pipeline: Any,
        vocabulary: DenseVocabulary | None = None,
        dense_weight: float = 0.1,
        uncaptioned: float = 0.1,
        long: float = 0.05,
    ) -> None:
        super().__init__()
        self.transformer = pipeline.transformer
        self.encoders = nn.ModuleList([pipeline.text_encoder, pipeline.text_encoder_2])
        self.third = pipeline.text_encoder_3.encoder  # which shares its embedding with what is round it
        self.uncaptioned, self.long = uncaptioned, long
        for name, ids in token_ids(pipeline, [""]).items():
            self.register_buffer(f"no_{name}", ids, persistent=False)
        self.heads = DenseHeads(self.transformer.inner_dim, vocabulary) if vocabulary else None
        self.dense_weight = dense_weight
        if self.heads is not None:
            blocks = self.transformer.transformer_blocks
            blocks[len(blocks) // 2 - 1].register_forward_hook(self._keep)
        self.halfway: Tensor | None = None
        self.end, self.padding = pipeline.tokenizer_3.eos_token_id, pipeline.tokenizer_3.pad_token_id

    def _keep(self, block: nn.Module, inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
        self.halfway = outputs[1]

    def embed(self, input_ids: Tensor, third_ids: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """What the pipeline's ``encode_prompt`` returns for ``max_sequence_length=length`` (SHORT or LONG).

        Returns:
            tokens (B, LENGTH + length, TEXT), pooled (B, TEXT).
        """
        outputs: list[Any] = [encoder(input_ids, output_hidden_states=True) for encoder in self.encoders]
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        if length == SHORT:
            third_ids = torch.full_like(third_ids[:, :1], self.end)
        else:
            third_ids = F.pad(third_ids, (0, length - third_ids.shape[1]), value=self.padding)
        return torch.cat([tokens, self.third(third_ids)[0]], dim=1), pooled

    def forward(self, latents: Tensor, input_ids: Tensor, third_ids: Tensor, **labels: Tensor) -> dict[str, Tensor]:
        """Loss of normalised latents, (B, CHANNELS, H / 8, W / 8), ids of their captions, and labels of the heads."""
        n, device = len(latents), latents.device
        if self.training:
            hidden = (torch.rand(n, device=device) < self.uncaptioned)[:, None]
            input_ids = torch.where(hidden, self.no_input_ids, input_ids)
            third_ids = torch.where(hidden, self.no_third_ids, third_ids)
        length = LONG if self.training and float(torch.rand(())) < self.long else SHORT
        # One level from each of n equal slices of the distribution: less noise in the loss.
        quantile = (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n
        sigma = torch.sigmoid(torch.special.ndtri(quantile.clamp(1e-4, 1 - 1e-4)))
        noise = torch.randn_like(latents)
        mixed = torch.lerp(latents, noise, sigma[:, None, None, None])
        # torch's fused attention is slow on a CPU: its backward pass took 43 % of a step in a profile on one core.
        with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
            tokens, pooled = self.embed(input_ids, third_ids, length)
            velocity = self.transformer(
                hidden_states=mixed, encoder_hidden_states=tokens, pooled_projections=pooled, timestep=sigma * 1000
            ).sample
        loss = F.mse_loss(velocity.float(), noise - latents)
        if self.heads is None or not labels:
            return {"loss": loss}
        assert self.halfway is not None
        nothing = {
            "dense_artifact": torch.zeros_like(labels["dense_kind"]),
            "dense_artifact_box": torch.full_like(labels["dense_object_box"], float("nan")),
        }
        flat = {name: values.flatten(0, 1) for name, values in (labels | nothing).items()}
        parts = dense_loss(self.heads(self.halfway.flatten(0, 1)), flat)
        return {"loss": loss + self.dense_weight * sum(parts.values()), "velocity_loss": loss.detach()}
