"""Prompts as chats: the ids that transformers gives them, from Python and from the command line."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.measures.harness import HarnessModel
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import Tokenizer, train_bpe

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHAT = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": " Where is the cat? "},
    {"role": "assistant", "content": "On the mat"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bpe = train_bpe(
        ["where is the cat? on the mat. you are brief"] * 4, 290, special=["<|user|>", "<|assistant|>"]
    )
    tokenizer = Tokenizer(bpe.backend, bos=bpe.bos, eos=bpe.eos, files={"chat_template.jinja": TEMPLATE})
    config = gpt2_config(vocab_size=bpe.vocab_size, d_model=8, n_layers=1, n_heads=1, max_positions=96)
    path = tmp_path_factory.mktemp("chat") / "model"
    save(LanguageModel(Transformer(config), tokenizer), path)
    return path


def test_a_prompt_of_a_chat_has_the_ids_of_transformers(folder: Path) -> None:
    theirs, lm = AutoTokenizer.from_pretrained(folder), gpt2lab.load(folder)
    for prompt, messages in ((CHAT[1]["content"], CHAT[1:2]), (CHAT[:2], CHAT[:2])):
        made = gpt2lab.generate(lm, [prompt], chat=True, max_new_tokens=3, keep=False)[0]
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True).input_ids
        assert made.prompt_tokens == expected
        assert made.text == gpt2lab.generate(lm, [expected], max_new_tokens=3, keep=False)[0].text
    with pytest.raises(LabError, match="a text or a list of messages"):
        gpt2lab.generate(lm, [[1, 2]], chat=True, keep=False)
    plain = LanguageModel(lm.model, Tokenizer(lm.tokenizer.backend, bos=0, eos=0))
    with pytest.raises(LabError, match="no chat template"):
        gpt2lab.generate(plain, "hello", chat=True, keep=False)


def test_the_command_prints_the_answer_alone(folder: Path, capsys) -> None:
    answer = gpt2lab.generate(folder, "Where is the cat?", chat=True, max_new_tokens=3, keep=False).text
    assert main(["generate", str(folder), "Where is the cat?", "--chat", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out == answer + "\n"


def test_the_harness_gets_chats_as_transformers_writes_them(folder: Path) -> None:
    theirs, ours = AutoTokenizer.from_pretrained(folder), HarnessModel(gpt2lab.load(folder))
    assert ours.chat_template(True) == TEMPLATE and ours.chat_template(False) is None
    for add in (True, False):  # False: the last message is continued
        messages = CHAT[:2] if add else CHAT
        expected = theirs.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add, continue_final_message=not add
        )
        assert ours.apply_chat_template(messages, add_generation_prompt=add) == expected
    with pytest.raises(LabError, match="'other': no such template"):
        ours.chat_template("other")
