"""A model with a tokenizer, and text, for the parts that need both."""

import json
from pathlib import Path

import pytest

from gpt2lab.text.generators.genes import Genes
from gpt2lab.text.generators.sequence_pairs import TranslationPairs
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, word_level
from tests.tiny import tiny

HARNESS_TASK = """
task: passages
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
num_fewshot: 0
"""
"""The questions as a task of lm-evaluation-harness."""


@pytest.fixture(scope="session")
def word_tokenizer() -> Tokenizer:
    return word_level(documents(0, 60))


@pytest.fixture
def lm(word_tokenizer: Tokenizer) -> LanguageModel:
    model = tiny("gpt2", vocab_size=word_tokenizer.vocab_size, max_positions=160, eos=word_tokenizer.eos)
    return LanguageModel(model, word_tokenizer)


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    """Six stories, one a line of a jsonl file; each line is a question with choices, and a gene with a protein too."""
    genes = TranslationPairs(genes=Genes(seed=2, shortest=24, longest=24))
    rows = [
        {
            "text": text,
            "question": text.split(".")[0],
            "choices": ["the ball", "a hat", "Anna"],
            "answer": i % 3,
            "match": i % 2,
            "dna": genes[i].first,
            "protein": genes[i].second,
            "codes": genes[i].label,
            "words": text.split()[:12],
            "label": ["B-NAME" if word[0].isupper() else "O" for word in text.split()[:12]],
        }
        for i, text in enumerate(documents(1, 6))
    ]
    file = tmp_path / "passages.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "passages.yaml").write_text(HARNESS_TASK.format(file=file))
    return file
