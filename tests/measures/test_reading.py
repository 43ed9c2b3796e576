"""The measures that read a model's inside: their numbers are those of the functions below them, by hand."""

from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode import generate
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.prompts import prompt_tokens
from gpt2lab.measures.activations import Activations
from gpt2lab.measures.attribution import Attribution
from gpt2lab.measures.logit_lens import LogitLens
from gpt2lab.measures.patching import Patching
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.model.interpret import load_activations
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.tokenizer import word_level
from tests.tiny import CONFIGS, tiny

PROMPT = "there was a little girl named"
CORRUPT = "there was a little boy named"


@pytest.fixture(params=CONFIGS)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    tokenizer = word_level(documents(0, 60))
    return LanguageModel(tiny(request.param, vocab_size=tokenizer.vocab_size), tokenizer)


def ids(lm: LanguageModel, text: str) -> torch.Tensor:
    assert lm.tokenizer is not None
    return torch.tensor([lm.tokenizer.encode(text)])


@torch.no_grad()
def test_the_lens_ends_in_the_models_answer(lm: LanguageModel) -> None:
    result = LogitLens(prompt=PROMPT)(lm)
    probabilities = lm.model(ids(lm, PROMPT))[0].softmax(-1)
    cells = result.tables["cells"]
    assert len(cells) == 6 * 4
    for place, cell in enumerate(cells[-6:]):
        assert cell["says"] == lm.tokenizer.decode([int(probabilities[place].argmax())])
        assert cell["probability"] == pytest.approx(float(probabilities[place].max()), rel=1e-4)
    assert result["answer"] == pytest.approx(float(probabilities.max(-1).values.mean()), rel=1e-4)
    columns = [cells[place::6] for place in range(6)]
    expected = [
        next(i for i in range(4) if all(cell["says"] == column[-1]["says"] for cell in column[i:]))
        for column in columns
    ]
    assert result["settled_after"] == pytest.approx(sum(expected) / 6)
    assert [row["block"] for row in result.tables["lens"]] == ["embed", "0", "1", "2"]


def test_attributions_sum_to_the_difference_of_logits(lm: LanguageModel) -> None:
    measure = Attribution(prompt=PROMPT, target="ball", against="hat", position=-2)
    if lm.config.norm_placement == "post":
        with pytest.raises(LabError, match="needs a pre-norm model"):
            measure(lm)
        return
    result = measure(lm)
    with torch.no_grad():
        logits = lm.model(ids(lm, PROMPT))[0, -2]
    expected = logits[lm.tokenizer.encode("ball")[0]] - logits[lm.tokenizer.encode("hat")[0]]
    assert result["logit_difference"] == pytest.approx(float(expected), rel=1e-4)
    parts = result["heads"] + result["feed_forwards"] + result["embeddings_and_biases"]
    assert parts == pytest.approx(result["logit_difference"], abs=1e-4)


def test_patching_the_changed_word_at_the_first_layer_restores_everything(lm: LanguageModel) -> None:
    result = Patching(clean=PROMPT, corrupt=CORRUPT, target="ball", against="hat")(lm)
    first = [row for row in result.tables["cells"] if row["layer"] == 0]
    for row in first:
        # Only one token differs, so in the first layer only its place can matter.
        assert row["restored"] == pytest.approx(1.0 if row["position"] == 4 else 0.0, abs=1e-4)
    assert {row["token"] for row in first} == set(CORRUPT.split())
    heads = Patching(clean=PROMPT, corrupt=CORRUPT, site="hook_pattern", by="head")(lm)
    assert len(heads.tables["cells"]) == 3 * lm.config.layer(0).n_heads


def test_recorded_activations_are_those_of_the_model(lm: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    result = Activations(prompt=PROMPT, read=("resid_post", "hook_attn_scores"), out=str(path))(lm)
    found = load_activations(path, model=lm.model, tokens=ids(lm, PROMPT))
    with torch.no_grad(), lm.model.tap(read=["resid_post", "hook_attn_scores"]) as tap:
        lm.model(ids(lm, PROMPT))
    assert list(found.tensors) == [row["name"] for row in result.tables["activations"]]
    for name, tensor in found.tensors.items():
        assert torch.allclose(tensor, tap[name], atol=1e-5)
    assert found.header["about"]["prompt"] == PROMPT


def gpt2() -> LanguageModel:
    tokenizer = word_level(documents(0, 60))
    return LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)


def test_figures_are_drawn() -> None:
    lm = gpt2()
    results = [
        LogitLens(prompt=PROMPT)(lm),
        Attribution(prompt=PROMPT)(lm),
        Patching(clean=PROMPT, corrupt=CORRUPT)(lm),
    ]
    for result in results:
        for name in result.figures:
            assert b"<svg" in result.figure_svg(name)
    assert [len(result.figures) for result in results] == [1, 1, 2]


def test_mistakes_are_named() -> None:
    lm = gpt2()
    with pytest.raises(LabError, match="the prompt is empty; give a text with --prompt"):
        LogitLens()(lm)
    with pytest.raises(LabError, match="the corrupt is empty"):
        Patching(clean=PROMPT)(lm)
    with pytest.raises(LabError, match="clean prompt has 6 tokens, the corrupt one 3"):
        Patching(clean=PROMPT, corrupt="there was a")(lm)
    with pytest.raises(LabError, match="both prompts give the same difference"):
        Patching(clean=PROMPT, corrupt=PROMPT)(lm)
    with pytest.raises(LabError, match=r"'red ball' must be one token, it is 2 \('red', 'ball'\)"):
        Attribution(prompt=PROMPT, target="red ball")(lm)
    with pytest.raises(LabError, match="target and against are the same token"):
        Attribution(prompt=PROMPT, target="ball", against="ball")(lm)
    with pytest.raises(LabError, match="position 6, but the prompt has 6 tokens"):
        Attribution(prompt=PROMPT, position=6)(lm)
    with pytest.raises(LabError, match="did you mean resid_post"):
        Activations(prompt=PROMPT, read=("resid_pots",))(lm)
    with pytest.raises(LabError, match="41 tokens, the model 40 positions"):
        LogitLens(prompt=" ".join(["a"] * 41))(lm)


def test_an_answer_is_one_token_where_it_follows_the_prompt(shared_data: Path) -> None:
    lm = load(shared_data / "models" / "stories260k-llama")  # by itself " Lily" is two tokens for it
    asked = {"target": " Lily", "against": "Tim"}
    result = Attribution(prompt="a little girl named", **asked)(lm)
    assert (result.about["target"], result.about["against"]) == ("Lily", "Tim")
    with torch.no_grad():
        logits = lm.model(torch.tensor([prompt_tokens(lm, "a little girl named")]))[0, -1]
    expected = logits[lm.tokenizer.id("▁Lily")] - logits[lm.tokenizer.id("▁Tim")]
    assert result["logit_difference"] == pytest.approx(float(expected), rel=1e-4)
    patched = Patching(clean="a little girl named", corrupt="a little boy named", **asked)(lm)
    assert "Lily" in str(patched.about)
    with pytest.raises(LabError, match="must be one token, it is 3"):
        Attribution(prompt="a little girl named", target=" Lily and")(lm)


def test_the_lens_reads_and_says_what_generate_does_in_words_with_their_blanks(shared_data: Path) -> None:
    lm = load(shared_data / "models" / "stories260k-llama")
    prompt = "Once upon a time there was a"
    cells = LogitLens(prompt=prompt)(lm).tables["cells"]
    time = len(prompt_tokens(lm, prompt))
    assert [cell["token"] for cell in cells[:3]] == ["<s>", " Once", " upon"]
    said = generate(lm, prompt, max_new_tokens=1, decoder=Greedy())
    assert cells[-1]["position"] == time - 1
    assert cells[-1]["says"] == said.text


def test_the_lens_of_a_deep_model_shows_the_last_blocks_which_answer() -> None:
    tokenizer = word_level(documents(0, 60))
    config = gpt2_config(vocab_size=tokenizer.vocab_size, d_model=8, n_layers=30, n_heads=1, max_positions=16)
    shown = str(LogitLens(prompt=PROMPT)(LanguageModel(Transformer(config).eval(), tokenizer)))
    table = shown.partition("\nlens\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in (table[1], table[-2], table[-1])] == ["embed", "28", "29"]
