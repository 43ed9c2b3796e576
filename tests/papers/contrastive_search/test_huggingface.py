"""The callable for `generate(custom_generate=...)` on models of transformers: the tokens of our own decoder."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from gpt2lab.base.errors import LabError
from gpt2lab.decode import Limits, generate
from gpt2lab.model import Transformer, save_model
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch
from gpt2lab.papers.contrastive_search.huggingface import contrastive_search
from gpt2lab.text.language_model import LanguageModel
from tests.papers.contrastive_search.test_decoder import PROMPTS, sharp

WIDTH = max(map(len, PROMPTS))
IDS = torch.tensor([[0] * (WIDTH - len(row)) + row for row in PROMPTS])
MASK = torch.tensor([[0] * (WIDTH - len(row)) + [1] * len(row) for row in PROMPTS])


def theirs(model: Transformer, folder: Path) -> Any:
    save_model(model, folder / "model")
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "model").eval()


def run(model: Any, **options: Any) -> list[list[int]]:
    given = {"max_new_tokens": 8, "pad_token_id": 0, "attention_mask": MASK, **options}
    return model.generate(IDS, custom_generate=contrastive_search, **given)[:, WIDTH:].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_a_padded_batch_gets_the_tokens_of_our_decoder(family: str, tmp_path: Path) -> None:
    model = sharp(family)
    ours = list(ContrastiveSearch(k=4, alpha=0.6).decode(model, PROMPTS, Limits(max_new_tokens=8)))
    peer = theirs(model, tmp_path)
    assert run(peer, penalty_alpha=0.6, top_k=4) == ours
    config = transformers.GenerationConfig(penalty_alpha=0.6, top_k=4, max_new_tokens=8, pad_token_id=0)
    out = peer.generate(
        IDS, attention_mask=MASK, custom_generate=contrastive_search, generation_config=config
    )
    assert out[:, WIDTH:].tolist() == ours
    usual = list(ContrastiveSearch().decode(model, PROMPTS, Limits(max_new_tokens=8)))
    assert run(peer) == usual


def test_rows_end_at_the_end_token_and_processors_act_before_the_candidates(tmp_path: Path) -> None:
    model = sharp("gpt2")
    peer = theirs(model, tmp_path)
    free = ContrastiveSearch().decode(model, PROMPTS, Limits(max_new_tokens=8))
    end = free[1][2]
    ours = ContrastiveSearch().decode(model, PROMPTS, Limits(max_new_tokens=8, eos=(end,), pad=0))
    found = run(peer, eos_token_id=end)
    assert [row[: len(kept)] for row, kept in zip(found, ours, strict=True)] == list(ours)
    assert all(set(row[len(kept) :]) <= {0} for row, kept in zip(found, ours, strict=True))
    penalised = ContrastiveSearch(repetition_penalty=2.0).decode(
        model, PROMPTS[1:2], Limits(max_new_tokens=6)
    )
    one = peer.generate(
        torch.tensor(PROMPTS[1:2]),
        custom_generate=contrastive_search,
        repetition_penalty=2.0,
        max_new_tokens=6,
        pad_token_id=0,
    )
    assert one[0, WIDTH:].tolist() == penalised[0]


def test_a_token_that_processors_forbid_never_wins(tmp_path: Path) -> None:
    peer = theirs(sharp("gpt2"), tmp_path)
    vocab = peer.config.vocab_size
    free = run(peer, penalty_alpha=1.0, top_k=vocab, max_new_tokens=1)
    bad = sorted({row[0] for row in free})
    rows = run(
        peer, penalty_alpha=1.0, top_k=vocab, max_new_tokens=3, bad_words_ids=[[token] for token in bad]
    )
    assert not {token for row in rows for token in row} & set(bad)


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    peer = theirs(sharp("gpt2"), tmp_path)
    for options, words in (
        ({"do_sample": True}, "deterministic"),
        ({"num_beams": 2}, "num_beams"),
        ({"penalty_alpha": 1.5}, "alpha"),
        ({"top_k": 0}, "k must be"),
        ({"top_k": 1000}, "vocabulary"),
        ({"attention_mask": MASK.flip(1)}, "padded on the right"),
        ({"max_new_tokens": 34}, "positions are left"),
    ):
        with pytest.raises(LabError, match=words):
            run(peer, **{"penalty_alpha": 0.6, "top_k": 4, **options})
    with pytest.raises(LabError, match="windows"):
        run(theirs(sharp("gpt_neo"), tmp_path / "local"), penalty_alpha=0.6, top_k=4)


@pytest.mark.parametrize(
    ("kind", "words"), [("bloom", "no position_ids"), ("mamba", "and no past_key_values")]
)
def test_a_model_without_positions_or_without_a_cache_is_refused(kind: str, words: str) -> None:
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=60, hidden_size=32, num_hidden_layers=1, n_layer=1, n_head=2, num_heads=2
    )
    peer = transformers.AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(LabError, match=words):
        run(peer, penalty_alpha=0.6, top_k=4)


def test_opt_which_the_lab_does_not_read_is_searched() -> None:
    """The paper's other models: against every candidate in a pass of its own, without cache or padding."""
    config = transformers.OPTConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        max_position_embeddings=40, word_embed_proj_dim=32,
    )  # fmt: skip
    peer = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.4, generator=generator)

    def read(text: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            out = peer(torch.tensor([text]), output_hidden_states=True)
        return out.hidden_states[-1][0], out.logits[0, -1].softmax(-1)

    expected = []
    for prompt in PROMPTS:
        text = list(prompt)
        for _ in range(6):
            states, likely = read(text)
            scores = {
                int(token): 0.4 * float(likely[token])
                - 0.6 * float(torch.cosine_similarity(read([*text, int(token)])[0][-1:], states).max())
                for token in likely.topk(4).indices
            }
            text.append(max(scores, key=lambda token: scores[token]))
        expected.append(text[len(prompt) :])
    assert run(peer, penalty_alpha=0.6, top_k=4, max_new_tokens=6, eos_token_id=None) == expected


def test_our_generate_takes_the_names_of_transformers() -> None:
    lm = LanguageModel(sharp("gpt2"))

    def tokens(**options: Any) -> list[list[int]]:
        found = generate(lm, PROMPTS, decoder="contrastive-search", max_new_tokens=8, **options)
        return [one.tokens for one in found]

    assert tokens(penalty_alpha=0.3, top_k=3, low_memory=True) == tokens(alpha=0.3, k=3)
    assert tokens(penalty_alpha=0.3, top_k=3) != tokens(alpha=0.6, k=5)
    with pytest.raises(LabError, match="same option"):
        tokens(penalty_alpha=0.3, alpha=0.3)
    with pytest.raises(LabError, match="do_sample"):
        tokens(penalty_alpha=0.3, do_sample=True)
