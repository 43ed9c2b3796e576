"""Attribution of a class to words: against leaving out and differentiating by hand, and what is refused."""

import copy

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.word_attribution import Method, WordAttribution, attribute_words, log_odds
from gpt2lab.model.architecture import attach
from gpt2lab.model.task_heads import Head
from gpt2lab.plots.bars import signed_bars
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level
from tests.tiny import tiny

TEXT = "  chute  de velo, chute"
LABELS = ("autre", "trauma", "social")


def classifier(family: str = "gpt2", **head: object) -> LanguageModel:
    tokenizer = byte_level()
    lm = LanguageModel(tiny(family, vocab_size=tokenizer.vocab_size, max_positions=48).double(), tokenizer)
    spec = Head(name="label", outputs=3, labels=LABELS, **head)  # type: ignore[arg-type]  # its own fields
    attach(lm.model, spec, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        lm.model.heads["label"].output.weight.mul_(40)  # type: ignore[union-attr, operator]  # a linear map
    return lm


def states(lm: LanguageModel, text: str) -> torch.Tensor:
    ids = torch.tensor([lm.tokenizer.encode(text)])  # type: ignore[union-attr]  # it has one
    return lm.model.hidden(ids)[0]


def odds(lm: LanguageModel, state: torch.Tensor, place: int) -> torch.Tensor:
    """log p - log(1 - p), by the probabilities themselves."""
    weight = lm.model.heads["label"].output.weight  # type: ignore[union-attr]  # a linear map
    p = (weight @ state).softmax(0)[place]  # type: ignore[operator]  # a tensor
    return p.log() - (1 - p).log()


@torch.no_grad()
def test_occlusion_is_the_log_odds_with_and_without_each_word() -> None:
    lm = classifier()
    found = attribute_words(lm, TEXT, label="trauma")
    without = ["de velo, chute", "chute velo, chute", "chute  de chute", "chute  de velo,"]
    whole = odds(lm, states(lm, TEXT)[-1], 1)
    wanted = [float(whole - odds(lm, states(lm, one)[-1], 1)) for one in without]
    assert found.words == ("chute", "de", "velo,", "chute")
    assert found.values == pytest.approx(wanted, abs=1e-5)
    assert found.score == pytest.approx(float(whole), abs=1e-5)
    assert max(map(abs, wanted)) > 1e-2


@pytest.mark.parametrize("place", [0, 2])
def test_gradient_times_input_is_that_of_finite_differences(place: int) -> None:
    lm = classifier()
    found = attribute_words(lm, TEXT, label=LABELS[place], method="gradient")
    ids = torch.tensor([lm.tokenizer.encode(TEXT)])  # type: ignore[union-attr]  # it has one
    table = lm.model.embedding.weight
    spans = [(0, 7), (7, 11), (11, 17), (17, 23)]  # bytes of each word; blanks alone are nobody's
    own = [[place for place in range(*span) if TEXT[place] != " "] for span in spans]
    step = 1e-5
    with torch.no_grad():
        embedded = table[ids].clone()

        def score(scale: float, tokens: list[int]) -> float:
            moved = embedded.clone()
            moved[0, tokens] *= 1 + scale
            return float(odds(lm, lm.model.hidden(embeddings=moved)[0, -1], place))

        wanted = [(score(step, tokens) - score(-step, tokens)) / (2 * step) for tokens in own]
    assert found.values == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_an_encoder_and_several_labels_have_attributions_too(method: Method) -> None:
    lm = classifier("bert", pooling="first", dense="none", bias=False)
    one = attribute_words(lm, TEXT, method=method)
    assert one.label in LABELS and len(one.values) == 4 and any(one.values)
    several = classifier(kind="multilabel")
    found = attribute_words(several, TEXT, label="social", method=method)
    with torch.no_grad():
        said = several.model.heads["label"](states(several, TEXT)[-1:])
    assert found.score == pytest.approx(float(said[0, 2]), abs=1e-5)


def test_log_odds_of_two_classes_are_the_difference_of_their_outputs() -> None:
    said = torch.tensor([[0.3, 1.5], [2.0, -700.0]])
    assert log_odds(Head(outputs=2), said, 1).tolist() == pytest.approx([1.2, -702.0])


def test_a_word_beyond_the_context_has_no_attribution() -> None:
    lm = classifier()
    found = attribute_words(lm, "a" * 47 + " chute", method="gradient")
    assert found.values[1] == 0.0 != found.values[0]
    assert attribute_words(lm, "a" * 48 + " chute").values[1] == 0.0


def test_the_measure_draws_its_words_and_leaves_the_model_alone() -> None:
    lm = classifier()
    before = copy.deepcopy(lm.model.state_dict())
    found = WordAttribution(text=TEXT)(lm)
    assert 0 < found["probability"] < 1 and len(found.tables["words"]) == 4
    assert b"velo" in found.figure_svg("words")
    assert all(torch.equal(before[name], value) for name, value in lm.model.state_dict().items())
    assert all(parameter.grad is None for parameter in lm.model.parameters())


def test_what_cannot_be_attributed_is_refused() -> None:
    lm = classifier()
    for text, options, words in (
        ("  ", {}, "no word"),
        (TEXT, {"label": "trama"}, "did you mean 'trauma'"),
        (TEXT, {"method": "lime"}, "no such method"),
        (TEXT, {"head": "other"}, "other"),
    ):
        with pytest.raises(LabError, match=words):
            attribute_words(lm, text, **options)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(LabError, match="needs a row"):
        signed_bars([], label="x")
