"""From a name to a model and its processor: embedded checkpoints, local folders, repositories of the Hub.

Loading is transformers' own; what is added here is that a failure says in a sentence what was tried and what to do.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, errors, hf_hub_download
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PaddleOCRVLProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import is_torchvision_available, logging

from sdg.calibration.trust import Trust
from sdg.engines.attention import NAME as DECODE_ATTENTION
from sdg.engines.base import SETTINGS_FILE, CheckpointError

EMBEDDED = {"sdg-tiny": Path(__file__).resolve().parents[1] / "checkpoints" / "sdg-tiny"}
"""The checkpoints that the package brings along."""

BF16_GAIN = 2.0
"""How much faster bfloat16 must be for a CPU to use it: below that, float32's exactness is worth more."""

BF16_DIFFERS = 0.02
"""Share of pictures whose boxes may differ between bfloat16 and float32. A checkpoint's :data:`SETTINGS_FILE` says what
its share is, as ``bf16_differs``, once ``benchmarks/bf16_agreement.py --write`` has measured it."""


@dataclass(frozen=True)
class HubOptions:
    """How files are found: the arguments that every ``from_pretrained`` of Hugging Face takes."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    force_download: bool = False

    def kwargs(self) -> dict[str, Any]:
        """As keyword arguments; an absent revision is left to the library's default."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def locate(name_or_path: str | os.PathLike[str]) -> str:
    """The folder or the Hub id that a name stands for: an embedded name first, then a folder, then an id.

    Raises:
        CheckpointError: for an embedded checkpoint that this installation lacks, and for a path that is no folder.
    """
    name = os.fspath(name_or_path)
    if name in EMBEDDED:
        if not (EMBEDDED[name] / "config.json").is_file():
            raise CheckpointError(
                f"the embedded checkpoint {name!r} is not part of this installation (no files in {EMBEDDED[name]}):"
                " install the package again, or name a local folder or a Hub id"
            )
        return str(EMBEDDED[name])
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise CheckpointError(f"{name!r} is a file: give the folder that holds config.json and the weights")
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or "\\" in name or not name:
        raise CheckpointError(f"{name!r} looks like a path, and there is no such folder. {_tried(name)}")
    return name


def load(
    name_or_path: str | os.PathLike[str],
    hub: HubOptions,
    *,
    device_map: Any = None,
    dtype: str | torch.dtype | None = None,
    quantization_config: Any = None,
    adapter: str | os.PathLike[str] | None = None,
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

    Raises:
        CheckpointError: saying what was tried and what to do.
    """
    name, location = os.fspath(name_or_path), locate(name_or_path)
    quantization = _quantization(quantization_config)
    config = _config(name, location, hub)
    on_gpu = torch.cuda.is_available() or torch.xpu.is_available()
    if device_map is None and on_gpu:
        device_map = "auto"
    if dtype is None:
        dtype = "auto" if (on_gpu and device_map != "cpu") or quantization is not None else _cpu_dtype(location, hub)
    processor = _processor(name, location, hub, config)
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            location,
            config=config,
            device_map=device_map,
            dtype=dtype,
            quantization_config=quantization,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **hub.kwargs(),
        )
    except Exception as error:
        raise CheckpointError(f"the weights of {name!r} could not be loaded: {brief(error)}") from error
    model, report = loaded
    if model.device.type == "cpu" and hasattr(config, "text_config") and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation({"text_config": DECODE_ATTENTION})
    # transformers fills what is missing with random weights and only warns: such a model would answer nonsense.
    if missing := sorted({*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])}):
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise CheckpointError(f"{name!r} lacks {len(missing)} of its weights ({shown}): download or copy it again")
    if adapter is not None:
        model = _with_adapter(model, adapter, hub, quantised=quantization is not None)
    return model.eval(), processor


def find_file(name_or_path: str | os.PathLike[str], filename: str, hub: HubOptions) -> Path | None:
    """Where a file of a checkpoint lies, downloaded where that is needed; None where the checkpoint has none."""
    location = locate(name_or_path)
    path = Path(location, filename)
    if not os.path.isdir(location):
        try:
            path = Path(hf_hub_download(location, filename, **hub.kwargs()))
        except (OSError, ValueError, errors.EntryNotFoundError):
            return None
    return path if path.is_file() else None


def read_settings(name_or_path: str | os.PathLike[str], hub: HubOptions) -> dict[str, Any]:
    """What the checkpoint's :data:`SETTINGS_FILE` says, or nothing where it has none.

    Raises:
        CheckpointError: where the file is there and is not a JSON object.
    """
    path = find_file(name_or_path, SETTINGS_FILE, hub)
    if path is None:
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds a {type(settings).__name__}, not an object")
    return settings


def read_trust(name_or_path: str | os.PathLike[str], hub: HubOptions) -> Trust:
    """The checkpoint's calibration and world, where it has them.

    Raises:
        CheckpointError: where a file is there and cannot be read.
    """
    try:
        return Trust.load(lambda filename: find_file(name_or_path, filename, hub))
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _cpu_dtype(location: str, hub: HubOptions) -> torch.dtype:
    """:func:`cpu_dtype`, unless the checkpoint says that it is not itself in bfloat16."""
    differs = read_settings(location, hub).get("bf16_differs")
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


def _config(name: str, location: str, hub: HubOptions) -> Any:
    """The checkpoint's configuration, of a model that reads pictures."""
    if os.path.isdir(location):
        if not Path(location, "config.json").is_file():
            raise CheckpointError(f"{name!r} has no config.json{_adapter_hint(Path(location, 'adapter_config.json'))}")
    else:
        _fetch_config(name, location, hub)
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False, **hub.kwargs())
    except Exception as error:
        raise CheckpointError(f"the configuration of {name!r} could not be read: {brief(error)}") from error
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise CheckpointError(
            f"{name!r} is a {config.model_type!r} model, which does not take a picture and a text:"
            " the detector needs an image-text-to-text model such as Qwen3-VL"
        )
    return config


def _fetch_config(name: str, repo_id: str, hub: HubOptions) -> None:
    """Download config.json by itself: huggingface_hub says why that fails, which transformers only half passes on."""
    try:
        hf_hub_download(repo_id, "config.json", **hub.kwargs())
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name!r} is gated: accept its terms at {constants.ENDPOINT}/{repo_id}, then log in with `hf auth login`"
            " or pass token="
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name!r} has no revision {hub.revision!r}") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(
            f"there is no checkpoint {name!r}, or it is private (pass token=). {_tried(name)}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name!r} is not in the cache, and could not be downloaded. {_tried(name, hub)}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(f"{name!r} has no config.json; if it is an adapter, pass it as adapter=") from error
    except OSError as error:
        raise CheckpointError(f"{name!r} could not be downloaded ({brief(error)}). {_tried(name, hub)}") from error


def _tried(name: str, hub: HubOptions | None = None) -> str:
    """What a name was looked up as, and what to do."""
    tried = f"Tried: embedded checkpoints ({', '.join(EMBEDDED)}), a local folder {name!r}"
    if hub is None:
        return f"{tried}, a repository of the Hub. Name one of these."
    where = f"{tried}, the cache, the Hub at {constants.ENDPOINT}"
    if hub.local_files_only:
        return f"{where} (not asked: local_files_only=True). Download it once without local_files_only."
    if constants.HF_HUB_OFFLINE:
        return f"{where} (not asked: HF_HUB_OFFLINE is set). Unset it, or copy the folder here and give its path."
    return f"{where} (no connection). Check the network, or copy the folder here and give its path."


def _processor(name: str, location: str, hub: HubOptions, config: Any) -> Any:
    kwargs = {"trust_remote_code": False, **hub.kwargs()}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a remark on each load about how PaddleOCRVLProcessor is written helps nobody
    try:
        if is_torchvision_available():
            processor = AutoProcessor.from_pretrained(location, **kwargs)
        else:
            processor = _picture_processor(location, kwargs)
    except Exception as error:
        raise CheckpointError(f"the processor of {name!r} could not be loaded: {brief(error)}") from error
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


def _picture_processor(location: str, kwargs: Mapping[str, Any]) -> Any:
    """The processor where torchvision is absent.

    Qwen-VL's processors hold a video half that cannot be made without torchvision. For a picture and a text,
    ``PaddleOCRVLProcessor`` with the checkpoint's own image processor and tokenizer gives the same tensors.
    """
    try:
        return AutoProcessor.from_pretrained(location, **kwargs)
    except Exception:
        config = AutoConfig.from_pretrained(location, **kwargs)
        if not config.model_type.startswith("qwen"):
            raise
        marks = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
        return PaddleOCRVLProcessor.from_pretrained(location, extra_special_tokens=marks, **kwargs)


def _quantization(config: Any) -> Any:
    if config == "4bit":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    if config == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    if isinstance(config, str):
        raise ValueError(f"quantization_config={config!r} is neither '4bit' nor '8bit' nor a BitsAndBytesConfig")
    return config


def _with_adapter(model: Any, adapter: str | os.PathLike[str], hub: HubOptions, *, quantised: bool) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise CheckpointError("adapter= needs peft: pip install 'sdg-t2i[train]'") from error
    # revision= names one of the checkpoint, not of the adapter.
    kwargs = {k: v for k, v in hub.kwargs().items() if k != "revision"}
    try:
        adapted = PeftModel.from_pretrained(model, os.fspath(adapter), **kwargs)
        return adapted if quantised else adapted.merge_and_unload()
    except Exception as error:
        raise CheckpointError(
            f"adapter {os.fspath(adapter)!r} could not be put on the model: {brief(error)}"
        ) from error


def _adapter_hint(path: Path) -> str:
    if not path.is_file():
        return ": it is not a checkpoint of transformers"
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        base = None
    return f", it is an adapter: load {base or 'its base model'!r} with adapter={str(path.parent)!r}"


def brief(error: BaseException) -> str:
    """The first line of an exception's message: the rest of transformers' messages are links and advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
