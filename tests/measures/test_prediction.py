"""What heads say of texts, and the measures of heads at their edges: long, empty, unseen, single, padded, bf16."""

import json
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.measures.labelled import Classification, Regression, TokenClassification
from gpt2lab.measures.prediction import embed, predict, predict_spans
from gpt2lab.model.architecture import attach
from gpt2lab.model.task_heads import Head, read_out
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import byte_level, word_level
from tests.tiny import tiny

TEXTS = ["a b c", "", "c", "b " * 200 + "c", "a"]
LABELS = Head(outputs=3, labels=("x", "y", "z"))


def model(*heads: Head, family: str = "gpt2") -> LanguageModel:
    tokenizer = word_level(["a b c d"])
    made = tiny(family, vocab_size=tokenizer.vocab_size)
    for i, head in enumerate(heads):
        attach(made, head, generator=torch.Generator().manual_seed(i))
    with torch.no_grad():
        for parameter in getattr(made, "heads", torch.nn.Module()).parameters():
            parameter.mul_(20)  # so that classes differ
    return LanguageModel(made, tokenizer)


def rows(path: Path, *labels: object, texts: list[str] = TEXTS) -> str:
    path.write_text(
        "".join(json.dumps({"text": t, "label": v}) + "\n" for t, v in zip(texts, labels, strict=False))
    )
    return str(path)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "distilbert"])
@pytest.mark.parametrize("truncate", ["left", "right"])
def test_each_text_is_told_as_it_is_alone_in_every_order_and_batch(family: str, truncate: str) -> None:
    lm = model(LABELS, family=family)
    all_at_once = predict(lm, TEXTS, batch_size=8, truncate=truncate)
    for i, text in enumerate(TEXTS):
        ids = (lm.tokenizer.encode(text) or [lm.tokenizer.eos])[:: 1 if truncate == "right" else -1][:40]
        ids = ids[:: 1 if truncate == "right" else -1]
        said = read_out(lm.model, ("label",), torch.tensor([ids]))["label"][0].softmax(-1)
        assert list(all_at_once[i].scores.values()) == pytest.approx(said.tolist(), abs=1e-5)
        assert all_at_once[i].label == "xyz"[int(said.argmax())]
        assert predict(lm, [text], truncate=truncate)[0].label == all_at_once[i].label


def test_every_kind_of_head_says_what_it_is_made_for() -> None:
    lm = model(
        LABELS,
        Head(name="many", kind="multilabel", outputs=2),
        Head(name="size", kind="regression", outputs=1),
        Head(name="tag", kind="tokens", outputs=2, labels=("O", "B-A")),
    )
    many = predict(lm, ["a b"], head="many")[0]
    assert set(many.labels) == {name for name, p in many.scores.items() if p >= 0.5}
    size = predict(lm, ["a b"], head="size")[0]
    assert size.value == size.scores["0"] and size.labels == ()
    tags = predict(lm, ["a b c", ["a", "d"], ""], head="tag")
    assert [len(one.labels) for one in tags] == [3, 2, 0] and tags[1].words == ("a", "d")
    cut = predict(lm, ["b " * 60], head="tag")[0]
    assert len(cut.labels) == 60 and set(cut.labels[40:]) == {"O"}
    with pytest.raises(LabError, match="several heads: label, many, size, tag"):
        predict(lm, ["a"])
    with pytest.raises(LabError, match="give each text as one string"):
        predict(lm, [["a", "b"]], head="label")
    for read in (predict, predict_spans, embed):
        with pytest.raises(LabError, match=r"texts are a list, got one text; give \['a b'\]"):
            read(lm, "a b")
    with pytest.raises(LabError, match=r"read \.labels or \.scores"):
        _ = size.label
    with pytest.raises(LabError, match="1 texts and 2 second texts"):
        predict(lm, ["a"], pairs=["b", "c"], head="label")


def test_pairs_are_read_together() -> None:
    lm = model(LABELS)
    assert predict(lm, ["a b"], pairs=["c d"])[0].scores == predict(lm, ["a b c d"])[0].scores
    assert (
        predict(lm, ["a b"], pairs=["c d"], separator="a ")[0].scores == predict(lm, ["a b a c d"])[0].scores
    )


def test_a_bidirectional_model_knows_the_halves_of_a_pair() -> None:
    lm = model(Head(outputs=3, pooling="mean"), family="bert")
    types = torch.tensor([[0, 0, 1]])
    ids = torch.tensor([[2, 3, 4]])
    assert not torch.equal(
        read_out(lm.model, ("label",), ids, token_types=types)["label"],
        read_out(lm.model, ("label",), ids)["label"],
    )


def test_bf16_says_nearly_the_same_and_nan_is_refused() -> None:
    lm = model(LABELS)
    exact = predict(lm, TEXTS[:3])
    rough = predict(LanguageModel(lm.model.to(torch.bfloat16), lm.tokenizer), TEXTS[:3])
    for a, b in zip(exact, rough, strict=True):
        assert list(b.scores.values()) == pytest.approx(list(a.scores.values()), abs=0.05)
    with torch.no_grad():
        lm.model.embedding.weight[:] = float("nan")
    with pytest.raises(LabError, match="NaN or infinite"):
        predict(lm, ["a"])


def test_predict_and_embed_take_a_folder(tmp_path: Path) -> None:
    lm = model(LABELS)
    save(lm, tmp_path / "model")
    assert gpt2lab.predict(tmp_path / "model", ["a b"])[0].scores == pytest.approx(
        predict(lm, ["a b"])[0].scores
    )
    assert gpt2lab.embed(tmp_path / "model", ["a", "b c"], pooling="last").shape == (2, 24)
    with pytest.raises(LabError, match="no head for embedding"):
        gpt2lab.embed(tmp_path / "model", ["a"])
    bare = LanguageModel(tiny("gpt2", vocab_size=257), byte_level())
    with pytest.raises(LabError, match="gpt2lab train --model MODEL"):
        predict(bare, ["a"])


def test_unseen_labels_are_refused_or_counted_wrong(tmp_path: Path) -> None:
    lm, data = model(LABELS), rows(tmp_path / "a.jsonl", "x", "y", "w", "x", None)
    with pytest.raises(LabError, match="line 3: label 'w' is not among the head's"):
        Classification(data=(data,))(lm)
    told = predict(lm, TEXTS[:4])
    right = sum(one.label == label for one, label in zip(told, ["x", "y", "w", "x"], strict=True))
    result = Classification(data=(data,), unseen="wrong", resamples=100)(lm)
    assert result["accuracy"] == right / 4 and result.about["unseen"] == 1 and result.about["examples"] == 4
    assert result.about["truncated"] == 1, "one text is longer than the model"


def test_one_class_alone_has_no_auroc_and_says_so(tmp_path: Path) -> None:
    result = Classification(data=(rows(tmp_path / "a.jsonl", "x", "x", "x"),), resamples=100)(model(LABELS))
    assert "auroc" not in result.numbers and "auroc" in result.about["undetermined"]
    assert result.about["majority"] == 1.0
    assert result.figure_svg("confusion").startswith(b"<svg")
    with pytest.raises(LabError, match="no row of the data has a label in label"):
        Classification(data=(rows(tmp_path / "b.jsonl", None, None),))(model(LABELS))
    with pytest.raises(LabError, match="no data; give labelled rows"):
        Classification()(model(LABELS))


def test_multilabel_and_several_numbers_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    marks, us, vs = [["p"], [], ["p", "q"], None], [1, 2, None, 4], [0.5, None, None, 2]
    found = [{"text": t, "m": m, "u": u, "v": v} for t, m, u, v in zip("abcd", marks, us, vs, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    lm = model(
        Head(name="m", kind="multilabel", outputs=2, labels=("p", "q")),
        Head(name="n", kind="regression", outputs=2, labels=("u", "v")),
    )
    many = Classification(data=(str(path),), head="m", resamples=100)(lm)
    assert many.about["examples"] == 3 and 0 <= many["macro_f1"] <= 1
    numbers = Regression(data=(str(path),), head="n", label=("u", "v"), resamples=100)(lm)
    told = [list(one.scores.values()) for one in predict(lm, list("abd"), head="n")]
    assert numbers["u.mse"] == pytest.approx(
        sum((a[0] - y) ** 2 for a, y in zip(told, [1, 2, 4], strict=True)) / 3, rel=1e-5
    )
    assert numbers.about["examples"] == 3


def test_tags_are_measured_in_spans(tmp_path: Path) -> None:
    lm = model(Head(name="tag", kind="tokens", outputs=2, labels=("O", "B-A")))
    words = [["a", "b", "c"], ["d"]]
    told = [one.labels for one in predict(lm, words)]
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"words": w, "tag": list(t)}) + "\n" for w, t in zip(words, told, strict=True))
    )
    result = TokenClassification(data=(str(path),), field="words", resamples=100)(lm)
    assert result["word_accuracy"] == 1.0 and result.about["words"] == 4
    assert result["span_f1"] == (1.0 if any("B-A" in tags for tags in told) else 0.0)
    path.write_text(json.dumps({"words": ["a"], "tag": ["B-Z"]}) + "\n")
    with pytest.raises(LabError, match="label 'B-Z' is not among the head's"):
        TokenClassification(data=(str(path),), field="words")(lm)


def test_spans_of_a_text_are_the_labels_of_its_words_in_characters() -> None:
    lm = model(Head(name="tag", kind="tokens", outputs=3, labels=("B-A", "O", "I-A")))
    texts = ["a b  c", "c a", "d"]
    for text, words, spans in zip(texts, predict(lm, texts), predict_spans(lm, texts), strict=True):
        marked = [word for word, label in zip(text.split(), words.labels, strict=True) if label != "O"]
        assert " ".join(text[span.start : span.end] for span in spans).split() == marked
        assert {span.label for span in spans} <= {"A"} and bool(spans) == bool(marked)
    assert any(predict_spans(lm, texts))
