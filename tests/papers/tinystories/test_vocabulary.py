"""The 10K-vocabulary reduction against a slow count."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.tinystories.vocabulary import ReduceVocabulary
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.reduction import ReducedTokenizer, VocabularyReduction, count_tokens, reduce_vocabulary
from gpt2lab.text.tokenizer import byte_level, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer

WORDS = word_level([" ".join(f"w{i}" for i in range(40))])
EOS = WORDS.eos


@given(
    documents=st.lists(st.lists(st.integers(0, WORDS.vocab_size - 1), max_size=30), min_size=1, max_size=8),
    size=st.integers(3, 45),
)
@hypothesis_settings(max_examples=80, deadline=None)
def test_the_most_frequent_ids_are_kept_with_ties_to_the_lower_and_eos_always(documents, size):
    counts = Counter(i for document in documents for i in document)
    if not counts:
        return
    reduction = reduce_vocabulary(count_tokens(documents, WORDS), size=size, eos=EOS)
    ranked = sorted((i for i in counts if i != EOS), key=lambda i: (-counts[i], i))
    assert set(reduction.kept) == {EOS, *ranked[: size - 2]}
    assert list(reduction.kept) == sorted(reduction.kept)
    assert reduction.size <= size and reduction.unk == reduction.size - 1
    kept = sum(counts[i] for i in reduction.kept)
    assert reduction.coverage == pytest.approx(kept / counts.total())
    for document in documents:
        there_and_back = reduction.decode(reduction.encode(document))
        assert there_and_back == [i if i in reduction.kept else None for i in document]


def make(texts: list[str], size: int):
    tokenizer = word_level(texts)
    stream = [[*tokenizer.encode(text), tokenizer.eos] for text in texts]
    return tokenizer, reduce_vocabulary(count_tokens(stream, tokenizer), size=size, eos=tokenizer.eos), stream


def test_a_reduction_of_another_tokenizer_or_corpus_is_refused():
    tokenizer, reduction, stream = make(["a a b b c", "a d"], 5)
    reduction.check(tokenizer=tokenizer, corpus=count_tokens(stream, tokenizer).corpus)
    with pytest.raises(LabError, match="made with tokenizer"):
        reduction.check(tokenizer=WORDS)
    with pytest.raises(LabError, match="counted on corpus"):
        reduction.check(corpus=count_tokens(stream[:1], tokenizer).corpus)
    with pytest.raises(LabError, match="made with tokenizer"):
        ReducedTokenizer(WORDS, reduction)
    assert count_tokens([[1, 2], [3]], WORDS).corpus != count_tokens([[1], [2, 3]], WORDS).corpus


def test_a_reduced_tokenizer_says_unk_for_the_rest_and_survives_saving(tmp_path):
    tokenizer, reduction, _ = make(["a a a b b c", "a d"], 5)
    reduced = ReducedTokenizer(tokenizer, reduction)
    ids = reduced.encode("a d b c")
    assert reduced.vocab_size == 5 and max(ids) < 5
    assert reduced.decode(ids, skip_special=False).split("<unk>")[0].strip() == "a"
    assert reduced.id("a") is not None and reduced.token(reduced.unk) == "<unk>"
    assert reduced.encode_batch(["a d b c"]) == [ids]
    save_tokenizer(reduced, tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == reduced.fingerprint != tokenizer.fingerprint
    assert again.encode("a d b c") == ids
    assert VocabularyReduction.load(tmp_path) == reduction


def test_it_works_with_a_byte_tokenizer_too():
    tokenizer = byte_level()
    stream = [[*tokenizer.encode("aab é"), tokenizer.eos]]
    reduced = ReducedTokenizer(
        tokenizer, reduce_vocabulary(count_tokens(stream, tokenizer), size=5, eos=tokenizer.eos)
    )
    assert reduced.decode(reduced.encode("aaz")) == "aa"


def test_the_reduced_model_gives_the_kept_tokens_the_same_logits():
    tokenizer = word_level(["a b c d e f g h"])
    config = gpt2_config(vocab_size=tokenizer.vocab_size, d_model=12, n_layers=2, n_heads=3, max_positions=16)
    lm = LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(3)), tokenizer)
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    small = ReduceVocabulary(vocabulary=6)(lm, ["a b a b c c c", "a d"])
    reduction = small.tokenizer.reduction
    ids = tokenizer.encode("c a b a")
    logits = lm.model(torch.tensor([ids]))
    reduced = small.model(torch.tensor([reduction.encode(ids)]))
    assert small.config.vocab_size == 6 == reduced.shape[-1]
    torch.testing.assert_close(reduced[..., :-1], logits[..., list(reduction.kept)])
    assert all(torch.equal(before[name], value) for name, value in lm.model.state_dict().items())


def test_the_ids_are_counted_in_the_field_that_holds_the_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "zzzz", "body": "abab"}\n')
    config = gpt2_config(vocab_size=257, d_model=16, n_layers=1, n_heads=2, max_positions=8)
    lm = LanguageModel(Transformer(config), byte_level())
    reduced = ReduceVocabulary(vocabulary=4, data=(str(path),), field="body")(lm).tokenizer
    assert reduced.decode(reduced.encode("abz")) == reduced.decode([*reduced.encode("ab"), reduced.unk])


@pytest.mark.parametrize(("size", "eos", "says"), [(2, 0, "size 2"), (5, None, "no end-of-text")])
def test_impossible_reductions_are_refused(size, eos, says):
    with pytest.raises(LabError, match=says):
        reduce_vocabulary(count_tokens([[1, 2]], WORDS), size=size, eos=eos)


def test_ids_of_another_vocabulary_and_damaged_files_are_refused(tmp_path):
    _, reduction, _ = make(["a b c"], 4)
    for call in (
        lambda: reduction.encode([99]),
        lambda: reduction.decode([9]),
        lambda: count_tokens([[99]], WORDS),
    ):
        with pytest.raises(LabError, match="id 9"):
            call()
    with pytest.raises(LabError, match="no vocabulary_reduction"):
        VocabularyReduction.load(tmp_path)
    (tmp_path / "vocabulary_reduction.json").write_text("{")
    with pytest.raises(LabError, match="not JSON, or cut off"):
        VocabularyReduction.load(tmp_path)
