"""The verbs on a bidirectional model: train it, measure it, go on with it, and be told why it does not generate."""

from tests.cli.conftest import SMALL, Lab


def test_a_bert_is_trained_measured_and_trained_further_and_does_not_generate(said: Lab) -> None:
    first = said("train", *SMALL, "--family", "bert", "--name", "masked")
    assert first.status == 0, first.err
    assert "masked_accuracy" in first.out
    assert first.out.rstrip().endswith("next    gpt2lab measure pseudo-perplexity masked-1")
    measured = said(
        "measure", "pseudo-perplexity", "masked-1", "--data", "tinyworld:5", "--limit", "20", "--json"
    )
    assert measured.status == 0, measured.err
    assert measured.json["numbers"]["pseudo_perplexity"] > 1
    again = said(
        *("train", "--data", "tinyworld:80", "--model", "masked-1", "--context", "32", "--steps", "2"),
        *("--name", "masked", "--json"),
    )
    assert again.status == 0, again.err
    assert "masked_perplexity" in again.json["results"]
    for words in (
        ("generate", "masked-1", "one day"),
        ("measure", "perplexity", "masked-1", "--data", "tinyworld:5"),
    ):
        refused = said(*words)
        assert refused.status != 0
        assert "needs a causal model, and this bert reads in both directions" in refused.err
        assert len(refused.err.strip().splitlines()) == 1
