"""A model of transformers beside the lab's own with the same weights: the same texts, the same scores."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt2lab.base.errors import LabError
from gpt2lab.decode.backends import HuggingFaceBackend
from gpt2lab.measures.lab_backend import LabBackend
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import train_bpe

CONTEXTS = ["Once upon a time", "Tom had a", ""]
CONTINUATIONS = [[" there was a girl.", " there"], [" red ball", " dog", " ball. He"], ["Tom had"]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[HuggingFaceBackend, LabBackend]:
    tokenizer = train_bpe([" ".join(CONTEXTS), *(text for texts in CONTINUATIONS for text in texts)] * 9, 300)
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size, d_model=24, n_layers=2, n_heads=3, max_positions=64,
        bos=tokenizer.bos, eos=tokenizer.eos, init_std=0.3,
    )  # fmt: skip
    model = Transformer(config, generator=torch.Generator().manual_seed(1)).eval()
    folder = tmp_path_factory.mktemp("model")
    save(LanguageModel(model, tokenizer), folder)
    theirs = HuggingFaceBackend(
        model=AutoModelForCausalLM.from_pretrained(folder).eval(),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )
    return theirs, LabBackend(lm=load(folder))


def test_greedy_texts_are_the_labs(pair: tuple[HuggingFaceBackend, LabBackend]) -> None:
    theirs, ours = (
        one.generate(CONTEXTS, max_new_tokens=12, temperature=0.0, stop=[" zebra"], n=2) for one in pair
    )
    assert [[one.text for one in row] for row in theirs] == [[one.text for one in row] for row in ours]
    assert [[one.tokens for one in row] for row in theirs] == [[one.tokens for one in row] for row in ours]


def test_scores_are_the_labs(pair: tuple[HuggingFaceBackend, LabBackend]) -> None:
    theirs, ours = (one.score(CONTEXTS, CONTINUATIONS) for one in pair)
    for row, known in zip(theirs, ours, strict=True):
        for one, other in zip(row, known, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            assert (one.tokens, one.likeliest) == (other.tokens, other.likeliest)


def test_draws_follow_the_seed_and_leave_the_callers_random_state(
    pair: tuple[HuggingFaceBackend, LabBackend],
) -> None:
    theirs, _ = pair
    before = torch.random.get_rng_state()
    first = theirs.generate(CONTEXTS, max_new_tokens=8, seed=1, n=3)
    assert first == theirs.generate(CONTEXTS, max_new_tokens=8, seed=1, n=3)
    assert first != theirs.generate(CONTEXTS, max_new_tokens=8, seed=2, n=3)
    assert len({one.text for one in first[0]}) > 1
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_it_cannot_do_is_refused(pair: tuple[HuggingFaceBackend, LabBackend]) -> None:
    theirs, _ = pair
    with pytest.raises(LabError, match="no log-probabilities with its texts"):
        theirs.generate(["a"], max_new_tokens=2, logprobs=True)
    with pytest.raises(LabError, match="cannot read a text of"):
        theirs.score([" ".join(["word"] * 5000)], [[" end"]])
