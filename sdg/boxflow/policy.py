"""A diffusers pipeline as a policy: what a flow-matching pipeline does, taken apart into the steps a trainer needs.

One small class a model family. :meth:`Policy.for_pipeline` finds it by the class name of the pipeline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor, nn

from sdg.boxflow import sde

ATTENTION = tuple(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0"))
TEXT_ATTENTION = tuple(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"))
FEED_FORWARD = tuple(f"{block}.net.{layer}" for block in ("ff", "ff_context") for layer in ("0.proj", "2"))


class Policy(ABC):
    """A flow-matching pipeline as something to sample from and to train.

    The base class does what families share where latents are pictures, (B, C, H, W). A subclass says which pipeline it
    is for, ``class MyPolicy(Policy, pipeline="MyPipeline")``, and implements :meth:`encode` and :meth:`velocity`.

    Args:
        pipeline: of diffusers; its transformer is the policy network, the rest is used as it is.
        max_sequence_length: tokens of a prompt, 1..``longest_prompt``; None takes the pipeline's own number.

    Raises:
        ValueError: for a scheduler that is not flow matching, or such a number of tokens out of range.
    """

    lora_targets: ClassVar[tuple[str, ...]] = ATTENTION
    """Modules of the transformer that get a LoRA where the user names none."""
    linear_sigmas: ClassVar[bool] = False
    """Whether the pipeline starts from evenly spaced noise levels instead of the scheduler's own."""
    longest_prompt: ClassVar[int] = 512
    """Largest ``max_sequence_length`` that the pipeline takes."""

    _families: ClassVar[dict[str, type[Policy]]] = {}

    def __init_subclass__(cls, pipeline: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if pipeline is not None:
            Policy._families[pipeline] = cls

    def __init__(self, pipeline: Any, max_sequence_length: int | None = None) -> None:
        if max_sequence_length is not None and not 1 <= max_sequence_length <= self.longest_prompt:
            raise ValueError(
                f"max_sequence_length={max_sequence_length} is out of range; {type(pipeline).__name__} reads "
                f"1..{self.longest_prompt} tokens of a prompt"
            )
        self.pipeline = pipeline
        self.prompt_options = {} if max_sequence_length is None else {"max_sequence_length": max_sequence_length}
        sde.schedule(pipeline.scheduler, 2, tokens=256)  # refuses a scheduler that is not flow matching

    @staticmethod
    def for_pipeline(pipeline: Any, max_sequence_length: int | None = None) -> Policy:
        """The policy of the pipeline's family.

        Args:
            pipeline: of diffusers.
            max_sequence_length: tokens of a prompt; None takes the pipeline's own number.

        Raises:
            ValueError: for a family that has no policy, or what the policy refuses.
        """
        name = type(pipeline).__name__
        if name not in Policy._families:
            raise ValueError(
                f"pipeline {name} has no policy; supported are {', '.join(sorted(Policy._families))}. For another "
                f'family write a class of its own: class MyPolicy(Policy, pipeline="{name}"), see '
                "docs/add-a-model-family.md"
            )
        return Policy._families[name](pipeline, max_sequence_length)

    @property
    def transformer(self) -> Any:
        """The policy network, as the pipeline holds it."""
        return self.pipeline.transformer

    @property
    def cell(self) -> int:
        """Side in pixels of a location, for which there is one log-probability."""
        return int(self.pipeline.vae_scale_factor)

    @property
    def multiple(self) -> int:
        """What height and width are multiples of: the side in pixels of a patch of the transformer."""
        return int(self.pipeline.vae_scale_factor * self.transformer.config.patch_size)

    @property
    def latent_channels(self) -> int:
        """Channels of the autoencoder's latents."""
        return int(self.transformer.config.in_channels)

    def check_size(self, height: int, width: int) -> None:
        """Refuse sizes in pixels that the pipeline cannot draw.

        Raises:
            ValueError: naming the multiple that height and width must be of.
        """
        for name, side in (("height", height), ("width", width)):
            if side < 1 or side % self.multiple:
                near = max(self.multiple, round(side / self.multiple) * self.multiple)
                raise ValueError(
                    f"{name}={side} must be a multiple of {self.multiple} for {type(self.pipeline).__name__}; "
                    f"the nearest is {near}"
                )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the locations that have log-probabilities, for a picture of this size in pixels."""
        return height // self.cell, width // self.cell

    def sigmas(self, num_steps: int, height: int, width: int) -> Tensor:
        """Noise levels of a run of ``num_steps``, (num_steps + 1,), float32, as the pipeline itself would set them.

        Args:
            num_steps: number of sampler steps.
            height: of the picture in pixels, on which a dynamic shift depends.
            width: of the picture in pixels.
        """
        tokens = (height // self.multiple) * (width // self.multiple)
        return sde.schedule(self.pipeline.scheduler, num_steps, tokens, linear=self.linear_sigmas)

    @abstractmethod
    def encode(self, prompts: Sequence[str], guidance_scale: float, device: torch.device | str) -> dict[str, Tensor]:
        """What :meth:`velocity` has to know of the prompts.

        Args:
            prompts: B texts.
            guidance_scale: with which velocities will be asked for.
            device: on which the text encoders are.

        Returns:
            tensors whose first dimension is B; other dimensions are the same for all prompts.
        """

    @abstractmethod
    def velocity(
        self,
        network: nn.Module,
        x: Tensor,
        sigma: float | Tensor,
        conditions: dict[str, Tensor],
        guidance_scale: float,
        height: int,
        width: int,
    ) -> Tensor:
        """The model's noise - x_0 at ``x``, guidance included.

        Args:
            network: the transformer, or what wraps it for training and takes the same arguments.
            x: latents, first dimension B.
            sigma: noise level of ``x`` in 0..1: one number, or one an image, (B,).
            conditions: from :meth:`encode`.
            guidance_scale: as given to :meth:`encode`.
            height: of the picture in pixels.
            width: of the picture in pixels.

        Returns:
            float32, the shape of ``x``.
        """

    def initial_latents(
        self, generators: Sequence[torch.Generator], height: int, width: int, device: torch.device | str
    ) -> Tensor:
        """Noise to start from; an image's noise does not depend on the others in its batch.

        Args:
            generators: one an image.
            height: of the pictures in pixels.
            width: of the pictures in pixels.
            device: of the result.

        Returns:
            (B, C, H, W), or (B, N, C) where the family packs its latents; float32.

        Raises:
            ValueError: for a size that the pipeline cannot draw.
        """
        self.check_size(height, width)
        size, dtype = len(generators), torch.float32
        drawn = self.pipeline.prepare_latents(
            size, self.latent_channels, height, width, dtype, device, list(generators)
        )
        noise: Tensor = drawn[0] if isinstance(drawn, tuple) else drawn
        return noise

    def unpack(self, x: Tensor, height: int, width: int) -> Tensor:
        """Latents as the autoencoder takes them, (B, C, H, W)."""
        return x

    @torch.no_grad()
    def decode(self, x: Tensor, height: int, width: int) -> list[Image]:
        """Pictures of latents at sigma = 0, in the precision of the autoencoder.

        Args:
            x: latents, first dimension B.
            height: of the pictures in pixels.
            width: of the pictures in pixels.
        """
        vae = self.pipeline.vae
        latents = self.unpack(x.float(), height, width) / vae.config.scaling_factor
        latents = latents + (vae.config.get("shift_factor") or 0.0)
        decoded = vae.decode(latents.to(vae.device, vae.dtype), return_dict=False)[0]
        pictures: list[Image] = self.pipeline.image_processor.postprocess(decoded.float(), output_type="pil")
        return pictures

    def network_inputs(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """Latents in the transformer's precision, and the noise level of each image, (B,), float32."""
        levels = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).expand(len(x))
        return x.to(self.transformer.dtype), levels


class SD3Policy(Policy, pipeline="StableDiffusion3Pipeline"):
    """Stable Diffusion 3 and 3.5; classifier-free guidance with the empty prompt where ``guidance_scale`` > 1."""

    lora_targets = ATTENTION + TEXT_ATTENTION

    def check_size(self, height: int, width: int) -> None:
        """Refuse sizes in pixels that the pipeline cannot draw, too large ones included."""
        super().check_size(height, width)
        limit = self.transformer.config.pos_embed_max_size * self.multiple
        if max(height, width) > limit:
            raise ValueError(f"{height} x {width} pixels are more than this model has positions for: {limit} a side")

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], guidance_scale: float, device: torch.device | str) -> dict[str, Tensor]:
        """``prompt`` (B, tokens, C) and ``pooled`` (B, C); with guidance the same of the empty prompt, ``no_…``."""
        prompt, no_prompt, pooled, no_pooled = self.pipeline.encode_prompt(
            prompt=list(prompts),
            prompt_2=None,
            prompt_3=None,
            device=device,
            do_classifier_free_guidance=guidance_scale > 1,
            **self.prompt_options,
        )
        conditions = {"prompt": prompt, "pooled": pooled, "no_prompt": no_prompt, "no_pooled": no_pooled}
        return {name: tensor for name, tensor in conditions.items() if tensor is not None}

    def velocity(
        self,
        network: nn.Module,
        x: Tensor,
        sigma: float | Tensor,
        conditions: dict[str, Tensor],
        guidance_scale: float,
        height: int,
        width: int,
    ) -> Tensor:
        """The model's noise - x_0 at ``x``; with guidance the network sees a batch of 2 B."""
        latents, levels = self.network_inputs(x, sigma)
        prompt, pooled = conditions["prompt"], conditions["pooled"]
        guided = guidance_scale > 1
        if guided:
            latents, levels = torch.cat([latents, latents]), torch.cat([levels, levels])
            prompt = torch.cat([conditions["no_prompt"], prompt])
            pooled = torch.cat([conditions["no_pooled"], pooled])
        velocity: Tensor = network(
            hidden_states=latents,
            timestep=levels * self.pipeline.scheduler.config.num_train_timesteps,
            encoder_hidden_states=prompt.to(latents.dtype),
            pooled_projections=pooled.to(latents.dtype),
            return_dict=False,
        )[0].float()
        if not guided:
            return velocity
        without, with_prompt = velocity.chunk(2)
        return without + guidance_scale * (with_prompt - without)


class FluxPolicy(Policy, pipeline="FluxPipeline"):
    """FLUX.1; ``guidance_scale`` goes into the network where that was distilled to take it ([dev]), else nowhere.

    Its latents are packed: a token holds 2 x 2 cells of the autoencoder's, and has one log-probability.
    """

    lora_targets = ATTENTION + TEXT_ATTENTION + FEED_FORWARD
    linear_sigmas = True

    @property
    def cell(self) -> int:
        """Side in pixels of a token."""
        return int(self.pipeline.vae_scale_factor * 2)

    @property
    def multiple(self) -> int:
        """Side in pixels of a token, of which height and width are multiples."""
        return self.cell

    @property
    def latent_channels(self) -> int:
        """Channels of the autoencoder's latents, of which a token holds four cells."""
        return int(self.transformer.config.in_channels // 4)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], guidance_scale: float, device: torch.device | str) -> dict[str, Tensor]:
        """``prompt`` (B, tokens, C) and ``pooled`` (B, C)."""
        prompt, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts), prompt_2=None, device=device, **self.prompt_options
        )
        return {"prompt": prompt, "pooled": pooled}

    def velocity(
        self,
        network: nn.Module,
        x: Tensor,
        sigma: float | Tensor,
        conditions: dict[str, Tensor],
        guidance_scale: float,
        height: int,
        width: int,
    ) -> Tensor:
        """The model's noise - x_0 at ``x``, (B, tokens, C)."""
        latents, levels = self.network_inputs(x, sigma)
        # Through the latents' precision first, as the pipeline does: the network multiplies by 1000 again.
        timestep = (levels * self.pipeline.scheduler.config.num_train_timesteps).to(latents.dtype) / 1000
        guidance = torch.full_like(levels, guidance_scale) if self.transformer.config.guidance_embeds else None
        prompt = conditions["prompt"].to(latents.dtype)
        velocity: Tensor = network(
            hidden_states=latents,
            timestep=timestep,
            guidance=guidance,
            pooled_projections=conditions["pooled"].to(latents.dtype),
            encoder_hidden_states=prompt,
            txt_ids=torch.zeros(prompt.shape[1], 3, device=x.device),
            img_ids=self._positions(height, width).to(x.device),
            return_dict=False,
        )[0]
        return velocity.float()

    def _positions(self, height: int, width: int) -> Tensor:
        """0, row and column of each token, (tokens, 3)."""
        rows, columns = self.grid(height, width)
        return torch.cartesian_prod(torch.zeros(1), torch.arange(rows).float(), torch.arange(columns).float())

    def unpack(self, x: Tensor, height: int, width: int) -> Tensor:
        """Tokens (B, N, 4 C) as latents of the autoencoder, (B, C, H, W)."""
        rows, columns = self.grid(height, width)
        cells = x.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, columns))  # (B, rows, columns, C, 2, 2)
        return cells.permute(0, 3, 1, 4, 2, 5).reshape(len(x), -1, 2 * rows, 2 * columns)
