"""Attribution, patching, confidence neurons, evaluation: against slow forms, with and without norms."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, attach
from gpt2lab.model.interpret import as_read, neuron_table, processed_unembed
from gpt2lab.papers.layernorm_removal import corpus, evaluation
from gpt2lab.papers.layernorm_removal.architecture import StagedNorms, calibrate, fire, stage_of
from gpt2lab.papers.layernorm_removal.evaluation import intervals, sink_rate, stream_norms, token_statistics
from gpt2lab.papers.layernorm_removal.fold import folded
from gpt2lab.papers.layernorm_removal.measure import head_attributions
from gpt2lab.papers.layernorm_removal.neurons import ablation_effects, confidence_neurons, null_space_share
from gpt2lab.papers.layernorm_removal.patching import (
    compare_patching,
    english_prompts,
    prefers,
    read_prompts,
)
from gpt2lab.papers.layernorm_removal.schedule import Schedule
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import byte_level, train_bpe, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer
from tests.papers.layernorm_removal import reference
from tests.papers.layernorm_removal.test_transform import frozen
from tests.tiny import tiny, tokens


@torch.no_grad()
def test_attribution_and_effect_are_those_of_the_logit_itself() -> None:
    """Leave the head's output out of the last residual by hand; with norms the two differ, frozen or folded they do not."""
    rows = tokens(4, 8)
    model = tiny("gpt2").double()
    found = head_attributions(model, rows, batch_size=3)
    assert found.names[:4] == ("L0H0", "L0H1", "L0H2", "L1H0")
    with model.tap(read=["blocks.1.attn.hook_result", "blocks.2.hook_resid_post"]) as tap:
        model(rows[:, :-1])
    head, last = tap["blocks.1.attn.hook_result"][:, -1, 2], tap["blocks.2.hook_resid_post"][:, -1]

    def logit(states: torch.Tensor) -> torch.Tensor:
        norm = F.layer_norm(states, (24,), model.final_norm.weight, model.final_norm.bias, 1e-5)
        logits = norm @ model.head.weight.T
        return (logits - logits.mean(-1, keepdim=True)).gather(1, rows[:, -1:])[:, 0]

    assert torch.allclose(found.effect[5], logit(last) - logit(last - head), atol=1e-10)
    assert found.error > 1.0
    for exact in (frozen("gpt2").double(), folded(frozen("gpt2").double())):
        assert head_attributions(exact, rows).error < 1e-8
    other = head_attributions(model, rows, target="last")
    assert not torch.allclose(other.effect, found.effect)


def test_the_interval_holds_the_error_and_is_the_same_twice() -> None:
    found = head_attributions(tiny("gpt2"), tokens(12, 8))
    low, high = found.interval(400, 3)
    assert low < found.error < high
    assert found.interval(400, 3) == (low, high)


@torch.no_grad()
def test_ablating_a_neuron_is_the_forward_pass_with_its_mean() -> None:
    model, rows = tiny("gpt2").double(), tokens(3, 9)
    neurons = confidence_neurons(model, 2)
    found = ablation_effects(model, rows, neurons, batch_size=2)
    together = ablation_effects(model, rows, neurons, cumulative=True)
    with model.tap(read=["blocks.2.mlp.hook_post"]) as tap:
        before = model(rows[:, :-1]).log_softmax(-1).flatten(0, 1)
    mean = tap["blocks.2.mlp.hook_post"].flatten(0, 1).mean(0)
    for i, chosen in ((0, neurons[:1]), (1, neurons)):

        def replaced(x: torch.Tensor, name: str, chosen: list[int] = chosen) -> torch.Tensor:
            x[..., chosen] = mean[chosen]
            return x

        with model.tap(write={"blocks.2.mlp.hook_post": replaced}):
            after = model(rows[:, :-1]).log_softmax(-1).flatten(0, 1)
        targets = rows[:, 1:].flatten()
        change = (
            F.nll_loss(after, targets, reduction="none") - F.nll_loss(before, targets, reduction="none")
        ).abs()
        entropy = (-(after.exp() * after).sum(-1) + (before.exp() * before).sum(-1)).abs()
        assert torch.allclose(together.loss[i], change.to(together.loss.dtype), atol=1e-5)
        assert torch.allclose(together.entropy[i], entropy.to(together.entropy.dtype), atol=1e-5)
    assert torch.allclose(found.loss[0], together.loss[0])
    with pytest.raises(LabError, match="neurons of layer 2"):
        ablation_effects(model, rows, [96])
    shares = null_space_share(model, neurons, 24)
    assert torch.allclose(shares, torch.ones(2).double())
    head, written = processed_unembed(model).weight, model.blocks[2].mlp.down.weight.T[neurons]
    axes = torch.linalg.svd(head).Vh[-5:]  # the directions that the head reads least
    written = written - written.mean(1, keepdim=True)
    expected = (written @ axes.T).norm(dim=1) / written.norm(dim=1)
    assert torch.allclose(null_space_share(model, neurons, 5), expected.square(), atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neurons_of_a_model_without_norms_are_those_of_the_same_network_with_frozen_ones(
    dtype: torch.dtype,
) -> None:
    model = frozen("gpt2")
    for i in range(3):  # a mean that is no rounding: it would rank neurons that the head cannot read
        model.blocks[i].mlp.down.weight += torch.randn(
            1, model.config.layer(i).d_mlp, generator=torch.Generator().manual_seed(i)
        )
    alone = folded(model).to(dtype)
    inputs = tokens(2, 9)
    assert torch.allclose(model(inputs), folded(model)(inputs), atol=1e-4)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for layer in range(3):
        before, without = (neuron_table(one, layer) for one in (model, alone))
        assert torch.allclose(before.norm, without.norm.float(), rtol=tolerance)
        assert torch.allclose(before.cosine_variance, without.cosine_variance.float(), rtol=5 * tolerance)
    assert confidence_neurons(model, 3) == confidence_neurons(folded(model), 3)
    shares = [null_space_share(one, [3, 1], 5) for one in (model, folded(model))]
    assert torch.allclose(*shares, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_confidence_neurons_are_ranked_as_the_formula_says(family: str) -> None:
    model = tiny(family).double()
    generator = torch.Generator().manual_seed(5)
    model.final_norm.weight *= 0.5 + torch.rand(24, generator=generator)
    model.blocks[-1].mlp.down.weight *= 0.2 + torch.rand(1, model.config.layer(2).d_mlp, generator=generator)
    vectors, gain = model.blocks[-1].mlp.down.weight.T, model.final_norm.weight
    expected = reference.confidence_ranking(
        vectors, model.head.weight, gain, centred=model.config.norm == "layernorm"
    )
    assert confidence_neurons(model, len(vectors)) == expected
    assert expected != sorted(expected)
    by_norm = vectors.norm(dim=1).argsort(descending=True).tolist()
    assert expected[:3] != by_norm[:3]  # the variance of the cosines has its say


@torch.no_grad()
def test_a_planted_confidence_neuron_is_ranked_first_and_works_only_through_the_norm() -> None:
    """A neuron that writes where the head reads nothing changes probabilities by the norm's scale alone."""
    direction = torch.zeros(24, dtype=torch.float64)
    direction[3], direction[11] = 0.5**0.5, -(0.5**0.5)  # its mean is 0: a LayerNorm lets it through

    def planted(model: Transformer) -> Transformer:
        model.final_norm.weight.fill_(1.0)
        head = model.head.weight
        head.copy_(head - torch.outer(head @ direction, direction))
        model.blocks[-1].mlp.down.weight[:, 7] = 40.0 * direction
        return model

    model, rows = planted(tiny("gpt2").double()), tokens(6, 9)
    assert confidence_neurons(model, 1) == [7]
    assert ablation_effects(model, rows, [7]).loss.median() > 0.01
    alone = attach(planted(tiny("gpt2").double()), StagedNorms())
    calibrate(alone, [{"tokens": rows[:, :-1]}])
    for unit in stage_of(alone).steps:
        fire(alone, unit)
    assert ablation_effects(folded(alone), rows, [7]).loss.max() < 1e-6


def test_a_head_that_reads_the_mean_keeps_it() -> None:
    model = tiny("gpt2").requires_grad_(False)
    plain = Transformer(model.config.replace(norm="none"), generator=torch.Generator().manual_seed(0))
    vector = torch.ones(1, model.config.d_model) + 0.1
    assert torch.equal(as_read(plain, vector, processed_unembed(plain)), vector)
    assert float(as_read(model, vector, processed_unembed(model)).abs().max()) < 1e-6


def test_the_null_space_of_a_large_vocabulary_needs_no_matrix_of_its_size() -> None:
    model = tiny("gpt2", vocab_size=400_000)  # [vocab, vocab] would be 1.3 TB
    assert 0 <= float(null_space_share(model, [3], 2)[0]) <= 1


def test_patching_the_whole_difference_is_one_and_small_differences_are_estimated_well() -> None:
    model = tiny("gpt2").double()
    clean, corrupt = tokens(3, 6), tokens(3, 6)
    corrupt[:, 3] = (clean[:, 3] + 1) % 61
    answer, against = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    found = compare_patching(model, clean, corrupt, answer, against, position=3)
    assert torch.allclose(found.patched[0, 3], torch.ones(3, dtype=found.patched.dtype))
    assert torch.allclose(found.patched[0, :3], torch.zeros(3, 3, dtype=found.patched.dtype))
    assert found.error == pytest.approx(float((found.estimated - found.patched).abs().mean()))
    assert found.by_prompt.shape == (3,) and found.heat_maps[0].shape == (3, 6)
    small = 1e-6 * torch.randn(3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.embedding.weight[corrupt[:, 3]] = model.embedding.weight[clean[:, 3]] + small
    near = compare_patching(model, clean, corrupt, answer, against, position=3, by_prompt=False)
    assert near.error < 1e-3


def test_prompts_are_read_in_pairs(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    rows = ['"A and B. A","B","A"', '"A and B. B","A","B"']
    file.write_text("prompt,answer_io,answer_s\n" + "\n".join(rows) + "\n")
    clean, corrupt, yes, no = read_prompts(file, byte_level())
    assert torch.equal(corrupt, clean.flip(0)) and torch.equal(yes, no.flip(0))
    file.write_text('prompt,answer_io,answer_s\n"A b","B","A"\n"A bc","A","B"\n')
    with pytest.raises(LabError, match="split them by length"):
        read_prompts(file, byte_level())
    file.write_text("prompt\nA\n")
    with pytest.raises(LabError, match=r"line 1: no field .answer_io.; there are .prompt."):
        read_prompts(file, byte_level())
    file.write_text('prompt,answer_io,answer_s\n"A bc","A","B"\n"B cc","B","A"\n')
    with pytest.raises(LabError, match="differ in one token"):
        read_prompts(file, byte_level())
    with pytest.raises(LabError, match=r"none.csv: cannot be read"):
        read_prompts(tmp_path / "none.csv", byte_level())


def test_english_prompts_are_pairs_that_differ_in_the_repeated_name() -> None:
    text = "Then, John and Mary went to the store. Mary gave a ring to Anna and the Paul of the house."
    tokenizer = train_bpe([text] * 3, vocab_size=420)
    found = english_prompts(tokenizer, 6, seed=2, start=0)
    shown = [tokenizer.decode(row) for row in found.clean[:, 1:].tolist()]
    assert found.clean[:, 0].tolist() == [0] * 6 and found.position == 11
    assert torch.equal(found.clean[0], found.corrupt[1]) and torch.equal(found.clean[3], found.corrupt[2])
    for text, yes, no in zip(shown, found.answer, found.against, strict=True):
        a, b = text.removeprefix("Then, ").split(" went")[0].split(" and ")
        one, other = tokenizer.decode([int(no)]).strip(), tokenizer.decode([int(yes)]).strip()
        assert text.endswith(f". {one} gave a ring to") and {one, other} == {a, b} and a != b
    assert english_prompts(tokenizer, 6, seed=2)[0].shape[1] == found.clean.shape[1] - 1
    assert not torch.equal(english_prompts(tokenizer, 6, seed=3, start=0).clean, found.clean)
    with pytest.raises(LabError, match="even number"):
        english_prompts(tokenizer, 5)
    with pytest.raises(LabError, match="CSV of your own"):
        english_prompts(byte_level(), 4)


@torch.no_grad()
def test_token_statistics_are_their_definitions() -> None:
    model, other, rows = tiny("gpt2").double(), tiny("gpt2", seed=5).double(), tokens(5, 9)
    found = token_statistics(model, rows, reference=other, batch_size=2)
    p, q = (m(rows[:, :-1]).softmax(-1).flatten(0, 1) for m in (model, other))
    targets = rows[:, 1:].flatten()
    kl = [(a * (a / ((p + q) / 2)).log()).sum(-1) for a in (p, q)]
    assert torch.allclose(found.divergence, (kl[0] + kl[1]) / 2, atol=1e-5)
    assert torch.allclose(found.loss, -p[range(40), targets].log(), atol=1e-5)
    assert torch.allclose(found.entropy, -(p * p.log()).sum(-1), atol=1e-5)
    gap = 0.0
    confidence, hit = p.max(-1).values.tolist(), (p.argmax(-1) == targets).double().tolist()
    for bin_ in range(10):
        inside = [i for i in range(40) if bin_ / 10 <= confidence[i] < (bin_ + 1) / 10]
        gap += abs(sum(hit[i] - confidence[i] for i in inside)) / 40
    assert found.calibration_error == pytest.approx(gap, abs=1e-5)
    assert found.quantiles()["median"] == pytest.approx(float(found.loss.quantile(0.5)))
    assert found.quantiles()["high_95"] == pytest.approx(float(found.loss.quantile(0.975)))


@torch.no_grad()
def test_chunks_of_the_vocabulary_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other, rows = tiny("gpt2"), tiny("llama"), tokens(4, 11)
    whole = token_statistics(model, rows, reference=other)
    monkeypatch.setattr(evaluation, "_ELEMENTS", 61 * 3)
    parts = token_statistics(model, rows, reference=other, batch_size=3)
    for name in ("loss", "entropy", "confidence", "hit", "divergence"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), atol=1e-6)


def test_intervals_are_those_of_pieces_drawn_anew() -> None:
    found = token_statistics(tiny("gpt2"), tokens(9, 6))
    extra = torch.arange(45.0, dtype=torch.float64)
    rows = {
        str(row["of each token"]): row for row in intervals(found, 9, {"n": extra}, resamples=4000, seed=1)
    }
    assert rows["n"]["mean"] == 22.0 and rows["loss"]["mean"] == float(found.loss.mean())
    width = 1.96 * float((5 * torch.arange(9.0) + 2).std(correction=0)) / 3  # of the mean of 9 pieces
    assert rows["n"]["high"] - 22 == pytest.approx(width, rel=0.08)
    assert 22 - rows["n"]["low"] == pytest.approx(width, rel=0.08)
    errors = rows["calibration error"]
    assert 0 < errors["low"] < errors["high"] and errors["mean"] == found.calibration_error
    one = intervals(found, 1, {}, resamples=5, seed=0)[-1]  # a single piece, drawn again and again
    assert one["low"] == pytest.approx(found.calibration_error) == one["high"]


def test_measures_are_kept_as_runs_and_show_what_the_forms_differ_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "home"))
    tokenizer = word_level(documents(0, 60))
    staged = attach(
        tiny("gpt2", vocab_size=tokenizer.vocab_size, eos=tokenizer.eos),
        StagedNorms(schedule=Schedule(start=0)),
    )
    save(LanguageModel(staged, tokenizer), tmp_path / "real")
    calibrate(staged, [{"tokens": tokens(2, 9)}])
    for unit in stage_of(staged).steps:
        fire(staged, unit)
    save(LanguageModel(staged, tokenizer), tmp_path / "frozen")
    options = {"data": ["tinyworld:20"], "samples": 3, "length": 9}
    for name in ("attribution-exactness", "confidence-neurons"):
        assert gpt2lab.measure(name, str(tmp_path / "frozen"), **options).numbers
    both = {"original": str(tmp_path / "real"), "control": str(tmp_path / "real"), **options}
    found = gpt2lab.measure("removal-effects", str(tmp_path / "frozen"), **both)
    assert found.numbers["export_folded.float64"] < 1e-9 < found.numbers["above_original"] ** 2
    assert [row["of each token"] for row in found.tables["means"]] == [
        "loss", "entropy", "divergence", "above_original", "above_control", "calibration error",
    ]  # fmt: skip
    plain = gpt2lab.measure("removal-effects", str(tmp_path / "real"), **options)
    assert not any(name.startswith("export") for name in plain.numbers)


@torch.no_grad()
def test_sinks_and_lengths_are_counted_by_position() -> None:
    model, rows = tiny("gpt2"), tokens(5, 9)
    with model.tap(read=["attn.hook_pattern", "hook_resid_mid"]) as tap:
        model(rows[:, :-1])
    sinks = tap["attn.hook_pattern"][..., 0] > 0.3  # [layers, batch, heads, queries]
    assert sink_rate(model, rows) == pytest.approx(float(sinks[..., 1:].double().mean()))
    assert sink_rate(model, rows, first_query=True) == pytest.approx(float(sinks.double().mean()))
    table = {row["place"]: row for row in stream_norms(model, rows)}
    expected = tap["hook_resid_mid"][1].norm(dim=-1)
    assert table["blocks.1.hook_resid_mid"]["elsewhere"] == pytest.approx(
        float(expected[:, 1:].mean()), rel=1e-5
    )
    assert table["blocks.1.hook_resid_mid"]["position 0"] == pytest.approx(
        float(expected[:, 0].mean()), rel=1e-5
    )


def split(ids: list[int], at: int) -> list[list[int]]:
    pieces: list[list[int]] = [[]]
    for token in ids:
        if token == at:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return pieces


def is_couple(names: set[int]) -> bool:
    first = corpus.words("name")[0]
    return len(names) == 2 and len({(name - first) // 2 for name in names}) == 1 and min(names) >= first


def test_the_generated_language_is_what_its_description_says() -> None:
    ids = corpus.tokens(3, 30_000)
    assert corpus.VOCAB_SIZE == 236 and ids.max() < 236
    assert (ids == corpus.tokens(3, 30_000)).all() and not (ids == corpus.tokens(4, 30_000)).all()
    sentences, giving, objects, prepositions = 0, 0, 0, 0
    for document in split(ids.tolist(), corpus.END)[:-1]:
        parts = split(document, corpus.DOT)[:-1]
        assert 8 <= len(parts) <= 19
        seen = set[int]()
        for words in parts:
            sentences += 1
            if words[1] in corpus.words("giving"):  # NAME GIVES the other NAME a thing
                giving += 1
                assert is_couple({words[0], words[2]})
                seen |= {words[0], words[2]}
                assert words[3] in corpus.words("determiner") and words[-1] in corpus.words("noun")
                continue
            seen |= set(words) & set(corpus.words("name"))
            verbs = [i for i, word in enumerate(words) if word in corpus.words("verb")]
            assert len(verbs) == 1
            objects += verbs[0] < len(words) - 1
            prepositions += any(word in corpus.words("preposition") for word in words)
        assert len(seen) < 2 or is_couple(seen)
    assert giving / sentences == pytest.approx(corpus.GIVING, abs=0.04)
    assert objects / (sentences - giving) == pytest.approx(0.70, abs=0.04)
    assert prepositions / (sentences - giving) == pytest.approx(0.25, abs=0.04)


def test_prompts_differ_in_the_name_that_their_text_has_named() -> None:
    prompts = corpus.name_prompts(1, 6)
    differ = (prompts.clean != prompts.corrupt).nonzero()
    assert differ[:, 1].tolist() == [prompts.position] * 6 == [1] * 6
    assert torch.equal(prompts.clean[:, 1], prompts.answer)
    assert torch.equal(prompts.corrupt[:, 1], prompts.against)
    for yes, no, last in zip(
        prompts.answer.tolist(), prompts.against.tolist(), prompts.clean[:, -1], strict=True
    ):
        assert {yes, no} <= set(corpus.words("name")) and not is_couple({yes, no})
        assert int(last) in corpus.words("verb")


@torch.no_grad()
def test_a_preference_is_a_larger_logit_of_the_answer_at_the_end() -> None:
    model, clean = tiny("gpt2"), tokens(6, 5)
    answer, against = torch.arange(1, 7), torch.arange(11, 17)
    last = model(clean)[:, -1]
    expected = [bool(last[i, 1 + i] > last[i, 11 + i]) for i in range(6)]
    assert prefers(model, clean, answer, against).tolist() == expected
    assert prefers(model, clean, against, answer).tolist() == [not one for one in expected]


def test_answers_are_the_tokens_they_have_after_the_prompt(tmp_path: Path, shared_data: Path) -> None:
    tokenizer = load_tokenizer(
        shared_data / "models" / "stories260k-llama"
    )  # it puts a blank before every text
    file = tmp_path / "prompts.csv"
    rows = ['"Lily and Tim. Lily saw"," Tim"," Lily"', '"Lily and Tim. Tim saw"," Lily"," Tim"']
    file.write_text("prompt,answer_io,answer_s\n" + "\n".join(rows) + "\n")
    clean, _, yes, no = read_prompts(file, tokenizer)
    assert clean[0].tolist() == tokenizer.encode("Lily and Tim. Lily saw")
    assert [tokenizer.token(int(id)) for id in (*yes, *no)] == ["▁Tim", "▁Lily", "▁Lily", "▁Tim"]
