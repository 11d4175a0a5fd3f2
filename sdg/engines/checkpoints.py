"""From a name to a model and its processor: embedded checkpoints, local folders, repositories of the Hub.

Loading is transformers' own; what is added here is that a failure says in a sentence what was tried and what to do.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PaddleOCRVLProcessor,
)
from transformers.utils import is_torchvision_available, logging

from sdg.engines.attention import NAME as DECODE_ATTENTION
from sdg.engines.base import CheckpointError
from sdg.engines.places import adapter_folder, base_of, checkpoint_folder, read_settings
from sdg.hub import HubOptions, again, because, brief

__all__ = ["CheckpointError", "HubOptions", "brief", "cpu_dtype", "load"]

BF16_GAIN = 2.0
"""How much faster bfloat16 must be for a CPU to use it: below that, float32's exactness is worth more."""

BF16_DIFFERS = 0.02
"""Share of pictures whose boxes may differ between bfloat16 and float32. A checkpoint's :data:`SETTINGS_FILE` says what
its share is, as ``bf16_differs``, once ``benchmarks/bf16_agreement.py --write`` has measured it."""


def load(
    name_or_path: str | os.PathLike[str],
    hub: HubOptions,
    *,
    device_map: Any = None,
    dtype: str | torch.dtype | None = None,
    quantization_config: Any = None,
    adapter: str | os.PathLike[str] | None = None,
    name: str | None = None,
    adapter_name: str | None = None,
) -> tuple[Any, Any]:
    """A model, in evaluation mode, and its processor.

    Args:
        name_or_path: embedded name, local folder or Hub id of an image-text-to-text checkpoint.
        hub: how files are found.
        device_map: as in transformers; None is the GPU where there is one.
        dtype: of the weights; None is the checkpoint's own on a GPU. On a CPU it is :func:`cpu_dtype`, or float32 where
            the checkpoint says that more than :data:`BF16_DIFFERS` of its pictures get other boxes in bfloat16.
        quantization_config: a ``BitsAndBytesConfig``, its dictionary, or ``"4bit"`` / ``"8bit"``.
        adapter: folder or Hub id of a PEFT adapter; it is merged into weights that are not quantised.
        name: how messages name the checkpoint; None is ``name_or_path``.
        adapter_name: how they name the adapter; None is ``adapter``.

    Raises:
        CheckpointError: saying what was tried and what to do.
        ValueError: for a quantisation that is none.
    """
    name = name or os.fspath(name_or_path)
    quantization = _quantization(quantization_config)
    folder = checkpoint_folder(name_or_path, hub)
    # Before gigabytes are read for it; a revision is one of the checkpoint.
    adapted = None if adapter is None else adapter_folder(adapter, replace(hub, revision=None))
    config = _config(name, folder)
    quantized = quantization or getattr(config, "quantization_config", None)
    _check_quantizer(name, quantized)
    on_gpu = torch.cuda.is_available() or torch.xpu.is_available()
    if device_map is None and on_gpu:
        device_map = "auto"
    if dtype is None:
        dtype = "auto" if (on_gpu and device_map != "cpu") or quantized is not None else _cpu_dtype(folder)
    processor = _processor(name, folder, config)
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            config=config,
            device_map=device_map,
            dtype=dtype,
            quantization_config=quantization,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise CheckpointError(f"the weights of {name!r} could not be loaded: {because(error, folder, name)}") from error
    model, report = loaded
    if model.device.type == "cpu" and hasattr(config, "text_config") and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation({"text_config": DECODE_ATTENTION})
    # transformers fills what is missing with random weights and only warns: such a model would answer nonsense.
    if missing := sorted({*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])}):
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise CheckpointError(f"{name!r} lacks {len(missing)} of its weights ({shown}): {again(name)}")
    if adapter is not None and adapted is not None:
        model = _with_adapter(model, name, adapter_name or os.fspath(adapter), adapted)
    return model.eval(), processor


def _cpu_dtype(folder: Path) -> torch.dtype:
    """:func:`cpu_dtype`, unless the checkpoint says that it is not itself in bfloat16."""
    differs = read_settings(folder).get("bf16_differs")
    return torch.float32 if differs is not None and differs > BF16_DIFFERS else cpu_dtype()


@functools.cache
def cpu_dtype() -> torch.dtype:
    """bfloat16 where this CPU multiplies matrices at least :data:`BF16_GAIN` times as fast in it, else float32.

    Measured once a process, in some milliseconds: on a CPU without bfloat16 units it is emulated, and slower.
    """

    def seconds(dtype: torch.dtype) -> float:
        x = torch.ones(256, 512, dtype=dtype)
        w = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(7):
            started = time.perf_counter()
            torch.nn.functional.linear(x, w)
            times.append(time.perf_counter() - started)
        return min(times)

    with torch.inference_mode():
        faster = seconds(torch.float32) / seconds(torch.bfloat16)
    return torch.bfloat16 if faster >= BF16_GAIN else torch.float32


def _config(name: str, folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(
            f"the configuration of {name!r} could not be read: {because(error, folder, name)}"
        ) from error


def _processor(name: str, folder: Path, config: Any) -> Any:
    kwargs = {"trust_remote_code": False}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a remark on each load about how PaddleOCRVLProcessor is written helps nobody
    try:
        if is_torchvision_available():
            processor = AutoProcessor.from_pretrained(folder, **kwargs)
        else:
            processor = _picture_processor(folder, kwargs)
    except Exception as error:
        raise CheckpointError(
            f"the processor of {name!r} could not be loaded: {because(error, folder, name)}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    for part in ("image_processor", "tokenizer", "chat_template"):
        if getattr(processor, part, None) is None:
            raise CheckpointError(f"the processor of {name!r} has no {part}: the files of the processor are missing")
    # Without its files a tokenizer is made all the same, with nothing in it.
    mark = getattr(config, "image_token_id", None)
    if mark is not None and getattr(processor, "image_token_id", mark) != mark:
        raise CheckpointError(
            f"the tokenizer of {name!r} does not fit its model: tokenizer.json is missing or another's"
        )
    return processor


def _picture_processor(folder: Path, kwargs: Mapping[str, Any]) -> Any:
    """The processor where torchvision is absent.

    Qwen-VL's processors hold a video half that cannot be made without torchvision. For a picture and a text,
    ``PaddleOCRVLProcessor`` with the checkpoint's own image processor and tokenizer gives the same tensors.
    """
    try:
        return AutoProcessor.from_pretrained(folder, **kwargs)
    except Exception:
        config = AutoConfig.from_pretrained(folder, **kwargs)
        if not config.model_type.startswith("qwen"):
            raise
        marks = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
        return PaddleOCRVLProcessor.from_pretrained(folder, extra_special_tokens=marks, **kwargs)


def _quantization(config: Any) -> Any:
    if config == "4bit":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    if config == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    if isinstance(config, str):
        raise ValueError(f"quantization_config={config!r} is neither '4bit' nor '8bit' nor a BitsAndBytesConfig")
    return config


def _check_quantizer(name: str, config: Any) -> None:
    """Refuse quantised weights where their library is missing: transformers' own message is of another error."""
    if config is None or find_spec("bitsandbytes") is not None:
        return
    settings = config if isinstance(config, dict) else vars(config)
    if str(settings.get("quant_method", "bitsandbytes")).rsplit(".", 1)[-1].lower() in (
        "bitsandbytes",
        "bits_and_bytes",
    ):
        raise CheckpointError(
            f"{name!r} in 4 or 8 bits needs bitsandbytes: pip install 'sdg-t2i[quant]', or load it without"
            " quantization_config"
        )


def _with_adapter(model: Any, name: str, shown: str, folder: Path) -> Any:
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise CheckpointError("adapter= needs peft: pip install 'sdg-t2i[train]'") from error
    base = base_of(folder)
    if base.model_class not in (None, type(model).__name__):
        raise CheckpointError(
            f"adapter {shown!r} was made for a {base.model_class}, and {name!r} is a {type(model).__name__}: name an"
            " adapter of this model"
        )
    try:
        adapted = PeftModel.from_pretrained(model, folder)
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            lacking = get_peft_model_state_dict(adapted).keys() - set(file.keys())
    except Exception as error:
        made = f", it was made for {base.name!r}" if base.name else ""
        raise CheckpointError(
            f"adapter {shown!r} could not be put on {name!r}{made}: {because(error, folder, shown)}"
        ) from error
    if lacking:  # PEFT would go on with what it starts from, which changes nothing
        raise CheckpointError(
            f"adapter {shown!r} lacks {len(lacking)} of its weights ({', '.join(sorted(lacking)[:2])}): {again(shown)}"
        )
    return adapted if getattr(model, "is_quantized", False) else adapted.merge_and_unload()
