"""Statistics of generated texts beside the real ones."""

import json
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.measures.text_metrics import diversity
from gpt2lab.measures.text_statistics import TextStatistics, describe
from gpt2lab.text.tokenizer import byte_level
from tests.measures.tools import TEXT, reader


def test_the_statistics_of_texts_by_hand() -> None:
    texts = ["the cat sat on the mat", "a dog ran to the cat sat"]
    numbers = describe(texts, ["once the cat sat on a chair", "nothing"])
    assert numbers["words"] == 6.5
    assert numbers["rep_2"] == 0.0 and numbers["diversity"] == 1.0
    assert numbers["distinct_1"] == pytest.approx(9 / 13)
    pairs, shared = (5, 6), 2  # the cat, cat sat
    assert numbers["self_rouge_2"] == pytest.approx(2 * shared / sum(pairs))
    assert numbers["nearest_rouge_2"] == pytest.approx((3 / 5 + 2 / 6) / 2)
    assert numbers["copied_words"] == pytest.approx((4 + 3) / 2)


def test_a_model_is_measured_beside_the_real_text_at_any_batch_size(tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    texts = [TEXT[i:] for i in range(0, 60, 12)] + ["short"]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    lm = reader()
    options = {"data": (str(data),), "against": (str(data),), "prompt_tokens": 8, "new_tokens": 24}
    found = [TextStatistics(**options, batch_size=size)(lm) for size in (1, 5)]  # type: ignore[arg-type]  # a table
    assert found[0].to_json() == found[1].to_json()
    assert found[0].about["texts"] == 5
    real = [row["real_text"] for row in found[0].tables["texts"]]
    assert real[0] == byte_level().decode(TEXT.encode()[8:32])
    assert found[0]["diversity_of_real_text"] == diversity(real)
    assert found[0]["copied_words_of_real_text"] > found[0]["copied_words"]


def test_too_few_texts_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text(json.dumps({"text": "short"}) + "\n")
    with pytest.raises(LabError, match=r"0 texts have 96 tokens"):
        TextStatistics(data=(str(data),))(reader())
    with pytest.raises(LabError, match="at least 2 texts"):
        TextStatistics(data=(str(data),), texts=1)(reader())
    with pytest.raises(LabError, match="new_tokens must be at least 1"):
        TextStatistics(data=(str(data),), new_tokens=0)(reader())
    with pytest.raises(LabError, match="needs two"):
        describe(["one text"])
