"""Chats: text, token ids and the assistant's tokens are those of transformers, for templates of five kinds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE
from gpt2lab.text.chat_batches import ChatBatches
from gpt2lab.text.chats import ChatTemplate, read_chats
from gpt2lab.text.tokenizer import Tokenizer, train_bpe

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message.role == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{ message['content'] + '<|im_end|>' }}{% endif %}
{{ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% set turns = messages[1:] %}
{%- else %}{% set system = '' %}{% set turns = messages %}{% endif %}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}
    {%- else %}{% generation %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endgeneration %}{% endif %}
{%- endfor %}"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}

{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
TOOLS = """{%- set ns = namespace(seen=0) %}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{%- for message in messages %}{% if message.role == 'tool' %}{% continue %}{% endif %}
{%- set ns.seen = ns.seen + 1 %}{{ ns.seen }}:{% if message.role == 'assistant' %}
{%- generation %}{{ message.content }}{{ message.calls | default([]) | tojson }}</s>{%- endgeneration %}
{%- else %}{{ message.content }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ ns.seen + 1 }}:{% endif %}"""
TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "zephyr": ZEPHYR, "tools": TOOLS}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello, how are you?\nWell? 🙂"},
    {"role": "assistant", "content": "Fine – naïve, and “quoted” 🙂"},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Still fine."},
]


def plain(template: str) -> str:
    """A template without its marks of answers."""
    return re.sub(r"\{%-? (end)?generation %\}\n?", "", template)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    made = train_bpe(["Hello, how are you? Fine – naïve, Still fine. user assistant system"] * 20, 320)
    made.backend.add_special_tokens([AddedToken(one, special=True) for one in special])
    ids = {one: made.backend.token_to_id(one) for one in special}
    return Tokenizer(
        made.backend, bos=ids["<s>"], eos=ids["</s>"], settings={"bos_token": "<s>", "eos_token": "</s>"}
    )


def theirs(tokenizer: Tokenizer, template: str) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend, bos_token="<s>", eos_token="</s>", chat_template=template
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_masks_are_those_of_transformers(name: str, tokenizer: Tokenizer) -> None:
    template = TEMPLATES[name]
    ours = ChatTemplate(template, {"bos_token": "<s>", "eos_token": "</s>"})
    peer = theirs(tokenizer, template)
    for stop in range(2, len(CHAT) + 1):
        for prompt in (False, True):
            said = ours.render(CHAT[:stop], add_generation_prompt=prompt)
            assert said == peer.apply_chat_template(CHAT[:stop], tokenize=False, add_generation_prompt=prompt)
    found = ours.tokens(tokenizer, CHAT)
    expected = peer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    assert found.ids == list(expected["input_ids"])
    assert [int(mark) for mark in found.answers] == list(expected["assistant_masks"])
    assert 0 < sum(found.answers) < len(found.ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_without_marks_answers_are_found_by_comparison(name: str, tokenizer: Tokenizer) -> None:
    template, special = TEMPLATES[name], {"bos_token": "<s>", "eos_token": "</s>"}
    marked, unmarked = ChatTemplate(template, special), ChatTemplate(plain(template), special)
    assert marked.marks_answers and not unmarked.marks_answers
    text, spans = marked.answers(CHAT)
    assert unmarked.answers(CHAT) == (text, spans) and len(spans) == 2
    assert "naïve" in text[slice(*spans[0])] and "[INST]" not in text[slice(*spans[0])]
    assert unmarked.tokens(tokenizer, CHAT) == marked.tokens(tokenizer, CHAT)


def test_all_tokens_of_the_last_character_are_the_assistants(tokenizer: Tokenizer) -> None:
    template = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    template += "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    chat = [CHAT[1], {"role": "assistant", "content": "ok 🙂"}, CHAT[3]]
    found = ChatTemplate(template).tokens(tokenizer, chat)
    mine = [id for id, own in zip(found.ids, found.answers, strict=True) if own]
    assert tokenizer.decode(mine) == "ok 🙂"
    expected = theirs(tokenizer, template).apply_chat_template(
        chat, return_dict=True, return_assistant_tokens_mask=True
    )
    assert sum(found.answers) == sum(expected["assistant_masks"]) + 3, "transformers counts one byte of four"


def test_tools_and_null_fields_reach_the_template_as_in_transformers(tokenizer: Tokenizer) -> None:
    tools = [{"type": "function", "function": {"name": "é<b>", "parameters": {"a": 1}}}]
    chat = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "calls": [1, "a"], "name": None},
    ]
    said = ChatTemplate(TOOLS).render(chat, tools=tools)
    assert said == theirs(tokenizer, TOOLS).apply_chat_template(chat, tools=tools, tokenize=False)
    assert "é<b>" in said


def test_a_template_that_rewrites_the_past_is_refused() -> None:
    forgets = (
        "{% for m in messages %}{{ m.content if loop.last or m.role == 'user' else '...' }}</s>{% endfor %}"
    )
    with pytest.raises(LabError, match="message 3: this chat template writes what stands before an answer"):
        ChatTemplate(forgets).answers(CHAT)


def test_marks_inside_a_macro_that_moves_text_are_refused() -> None:
    macro = "{% set late %}{% generation %}a{% endgeneration %}{% endset %}front{{ messages[0].content }}{{ late }}"
    with pytest.raises(LabError, match="inside of a macro"):
        ChatTemplate(macro).answers(CHAT)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for x in %}", "the chat template is damaged, line 1"),
        ("{{ raise_exception('only two turns') }}", "refuses this chat: only two turns"),
        ("{{ messages[0].content + 1 }}", "fails on this chat"),
        (
            "{{ ''.__class__.__mro__ }}{{ messages.__class__.__mro__[1].__subclasses__() }}",
            "refuses this chat",
        ),
        ("{% set n = namespace(__init__=1) %}", "refuses this chat"),
        ("{{ messages.append(1) }}", "refuses this chat"),
        ("{% for a in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "more than 16,777,216 characters"),
        ("{% include '/etc/passwd' %}", "fails on this chat|refuses this chat"),
    ],
)
def test_what_a_template_must_not_do_is_refused(template: str, reason: str) -> None:
    with pytest.raises(LabError, match=reason):
        ChatTemplate(template).render(CHAT)


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ([], "at least one message"),
        ([{"content": "x"}], "message 1: expected an object with role"),
        (["x"], "message 1"),
    ],
)
def test_what_is_no_chat_is_refused(chat: list[Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=reason):
        ChatTemplate(CHATML).render(chat)
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps({"messages": CHAT}) + "\n" + json.dumps({"messages": chat}) + "\n")
    with pytest.raises(LabError, match=f"chat.jsonl, line 2: .*{reason}"):
        read_chats(file)
    with pytest.raises(LabError, match="conversations"):
        read_chats(file, field="conversations")


def test_batches_hold_targets_at_answers_alone(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(CHATML)
    chats = [
        template.tokens(tokenizer, CHAT),
        template.tokens(tokenizer, CHAT[:3]),
        template.tokens(tokenizer, CHAT[:2]),
    ]
    batches = ChatBatches(chats, tokenizer, batch_size=2, context=500)
    assert batches.dropped == 1 and batches.truncated == 0
    batch = batches.gather([0, 1])
    for row, chat in enumerate(chats[:2]):
        learnt = batch["targets"][row] != IGNORE
        expected = [id for id, mine in zip(chat.ids, chat.answers, strict=True) if mine]
        assert batch["targets"][row][learnt].tolist() == expected
        assert batch["tokens"][row][batch["attention_mask"][row]].tolist() == chat.ids[:-1]
    short = chats[1].answers.index(True)
    cut = ChatBatches(chats, tokenizer, batch_size=1, context=short)
    assert cut.truncated == 2 and (cut.gather([0])["targets"] != IGNORE).sum() == 1
    with pytest.raises(LabError, match="none of 3 chats has an answer within 2 tokens"):
        ChatBatches(chats, tokenizer, batch_size=1, context=2)
