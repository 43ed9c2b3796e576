"""The harness's model of ours against its model of Hugging Face's, on the same folder, with local tasks only."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.harness import HarnessModel
from gpt2lab.measures.lm_eval import LmEval
from gpt2lab.model.architecture import attach
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from tests.tiny import tiny

ROOT = Path(__file__).parents[2]
TEXTS = list(documents(3, 40))
POSITIONS = 48

TASK = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
num_fewshot: 0
metadata: {{version: 1}}
"""
TASKS = {
    "toy-choice": "output_type: multiple_choice\ndoc_to_choice: choices\ndoc_to_target: answer\n"
    "metric_list: [{metric: acc}, {metric: acc_norm}]\n",
    "toy-rolling": 'output_type: loglikelihood_rolling\ndoc_to_target: "{{text}}"\n'
    "metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]\n",
    "toy-text": 'output_type: generate_until\ndoc_to_target: "{{text}}"\n'
    'generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}\n'
    "metric_list: [{metric: exact_match}]\n",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three tasks on one local file."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {
            "text": text,
            "question": text.split(".")[0],
            "choices": [" the ball", " a hat", " Anna"],
            "answer": i % 3,
        }
        for i, text in enumerate(TEXTS[:6])
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, rest in TASKS.items():
        text = f"task: {name}\n{TASK.format(data=folder / 'rows.jsonl')}{rest}"
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module", params=["gpt2", "llama", "gpt_neox"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a byte-level tokenizer, saved."""
    tokenizer = train_bpe(TEXTS, vocab_size=300)
    model = tiny(request.param, vocab_size=tokenizer.vocab_size, max_positions=POSITIONS, eos=tokenizer.eos)
    place = tmp_path_factory.mktemp("models") / request.param
    save(LanguageModel(model, tokenizer), place)
    return place


def both(folder: Path, batch_size: int = 4) -> tuple[Any, Any]:
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch_size)
    return HarnessModel(load(folder), batch_size=batch_size), theirs


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=one, idx=i) for i, one in enumerate(arguments)]


PAIRS = [
    ("one day", " the ball was lost"),
    ("one day ", "the ball"),  # the blank at the end of a context belongs to the continuation
    ("", "one day the ball"),
    ("<|endoftext|>one day", " a"),
    (" ".join(TEXTS[:3]), " Anna was glad"),  # longer than the positions: the beginning goes
    (TEXTS[4], TEXTS[5][:40]),
    ("one day", "\n\nüß"),
]


def test_log_likelihoods_are_those_of_the_hf_model(folder: Path) -> None:
    ours, theirs = both(folder)
    asked = requests("loglikelihood", PAIRS)
    mine, reference = ours.loglikelihood(asked), theirs.loglikelihood(asked)
    for (value, greedy), (expected, best) in zip(mine, reference, strict=True):
        assert value == pytest.approx(expected, abs=1e-4)
        assert greedy == best


def test_a_continuation_that_greedy_decoding_says_is_known_as_such(folder: Path) -> None:
    ours, theirs = both(folder)
    said = ours.generate_until(requests("generate_until", [("one day", {"max_gen_toks": 3})]))[0]
    asked = requests("loglikelihood", [("one day", said)])
    assert ours.loglikelihood(asked)[0][1] == theirs.loglikelihood(asked)[0][1]


def test_rolling_log_likelihoods_are_those_of_the_hf_model(folder: Path) -> None:
    ours, theirs = both(folder)
    asked = requests("loglikelihood_rolling", [(" ".join(TEXTS[:2]),), ("one",), (TEXTS[7],), ("",)])
    assert len(ours.tok_encode(asked[0].args[0])) > 2 * POSITIONS
    expected = theirs.loglikelihood_rolling(asked)
    assert ours.loglikelihood_rolling(asked) == pytest.approx(expected, abs=1e-4)


LILY = "Once upon a time there was a little girl named"
LLAMA_PAIRS = [
    (LILY, " Lily"),
    (LILY + " ", "Lily"),
    (LILY + " Lily. She was", " a very happy girl"),
    ("", "Once upon a time"),
    ("<s>Once upon", " a time"),
    ("Lily:\n", "ball 🙂"),
    (LILY + "\n\n", "Lily\n"),
    (" ".join([LILY] * 60), " Lily saw"),  # longer than the positions
]


@pytest.fixture(scope="module")
def llama(shared_data: Path) -> tuple[HarnessModel, Any]:
    """A model whose tokenizer puts a bos and a blank before every text, here and as `hf`."""
    return both(shared_data / "models" / "stories260k-llama")


def test_log_likelihoods_with_a_bos_and_a_blank_before_texts_are_those_of_hf(llama: tuple[Any, Any]) -> None:
    ours, theirs = llama
    found = ours.loglikelihood(requests("loglikelihood", LLAMA_PAIRS))
    assert len(ours.tok_encode(LLAMA_PAIRS[-1][0])) > ours.max_length
    # One at a time: hf confuses two requests of one batch that have the same tokens but another border, and looks
    # at the first context of a batch only for a bos that is written out.
    for mine, (context, continuation) in zip(found, LLAMA_PAIRS, strict=True):
        ((value, greedy),) = theirs.loglikelihood(requests("loglikelihood", [(context, continuation)]))
        assert mine == (pytest.approx(value, abs=1e-4), greedy)
        asked = requests("generate_until", [(context or continuation, {"max_gen_toks": 12, "until": ["."]})])
        assert ours.generate_until(asked) == theirs.generate_until(asked)


def test_a_start_token_is_not_scored_as_a_word_of_the_text(llama: tuple[Any, Any], shared_data: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    ours, theirs = llama
    text = "Once upon a time there was a girl."
    ids = [ours.tokenizer.bos, *ours.tokenizer.encode(text)]
    with torch.no_grad():
        logp = ours.lm.model(torch.tensor([ids]))[0].log_softmax(-1)
    right = sum(float(logp[i, token]) for i, token in enumerate(ids[1:]))
    for written in (text, f"<s>{text}"):
        asked = requests("loglikelihood_rolling", [(written,)])
        assert ours.loglikelihood_rolling(asked) == pytest.approx([right], abs=1e-4)
        assert theirs.loglikelihood_rolling(asked)[0] < right - 5  # p(bos | bos) is among its factors
    assert right == pytest.approx(-11.45, abs=0.005)
    folder = str(shared_data / "models" / "stories260k-llama")
    without = HFLM(pretrained=folder, device="cpu", dtype="float32", add_bos_token=False)
    texts = requests("loglikelihood_rolling", [(text,), (" ".join([text] * 70),), ("",)])
    expected = without.loglikelihood_rolling(texts)
    assert ours.loglikelihood_rolling(texts) == pytest.approx(expected, abs=1e-3)


def test_what_closes_texts_stands_after_no_context(folder: Path) -> None:
    plain = load(folder)
    backend = tokenizers.Tokenizer.from_str(plain.tokenizer.backend.to_str())
    eos = plain.tokenizer.eos
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", eos)]
    )
    closing = HarnessModel(LanguageModel(plain.model, Tokenizer(backend, bos=eos, eos=eos)))
    open_ = HarnessModel(plain)
    for kind, rows in (
        ("loglikelihood", PAIRS),
        ("loglikelihood_rolling", [("one day the ball",)]),
        ("generate_until", [("one day", {"max_gen_toks": 5})]),
    ):
        asked = requests(kind, rows)
        assert getattr(closing, kind)(asked) == getattr(open_, kind)(asked)


def test_a_token_across_the_border_is_the_continuations(folder: Path) -> None:
    ours = HarnessModel(load(folder))
    whole = ours.tokenizer.encode("one day")
    context, continuation = ours._encode_pair("one da", "y")
    assert (context, continuation) == (whole[:-1], whole[-1:])
    assert ours._encode_pair("  ", "one") == ([ours.prefix_token_id], ours.tokenizer.encode("  one"))
    with pytest.raises(LabError, match="a continuation has 0 tokens"):
        ours.loglikelihood(requests("loglikelihood", [("", "")]))


def test_texts_are_those_of_the_hf_model(folder: Path) -> None:
    ours, theirs = both(folder)
    contexts = ["one day", "the", " ".join(TEXTS[:3]), TEXTS[1][:60], "one day the ball was"]
    for options in (
        {"until": ["."], "max_gen_toks": 9},
        {"until": ["the", "\n"], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0},
        {"max_gen_toks": 6},
    ):
        asked = requests("generate_until", [(context, options) for context in contexts])
        assert ours.generate_until(asked) == theirs.generate_until(asked)


def test_no_number_and_no_text_depends_on_the_batch(folder: Path) -> None:
    one, many = (HarnessModel(load(folder), batch_size=size) for size in (1, "auto"))
    asked = requests("loglikelihood", PAIRS)
    for mine, other in zip(one.loglikelihood(asked), many.loglikelihood(asked), strict=True):
        assert mine[0] == pytest.approx(other[0], abs=1e-4)
    drawn = {"do_sample": True, "temperature": 1.5, "top_k": 40, "max_gen_toks": 8}
    asked = requests("generate_until", [("one day", drawn)] * 3 + [("the ball was", drawn)])
    texts = one.generate_until(asked)
    assert texts == many.generate_until(asked)
    assert len(set(texts)) == 4, "the same context is drawn from anew"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_gen_toks": POSITIONS}, f"{POSITIONS} new tokens leave no room"),
        (
            {"temprature": 1.0, "max_gen_toks": 4},
            r"temprature: no such generation option; did you mean temperature\?",
        ),
    ],
)
def test_what_cannot_be_generated_is_a_sentence(folder: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        HarnessModel(load(folder)).generate_until(requests("generate_until", [("one day", options)]))


def test_tasks_are_a_measure_and_their_numbers_are_those_of_the_hf_model(
    folder: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    surveys = list[str]()
    monkeypatch.setattr(
        "torch.utils.collect_env.get_pretty_env_info", lambda: surveys.append("pip list") or ""
    )
    state = torch.get_rng_state()
    measured = LmEval(tasks=tuple(TASKS), include_path=str(tasks))(load(folder))
    assert torch.equal(state, torch.get_rng_state())
    assert not surveys, "a measure has no use for what is installed, which takes seconds to list"
    expected = simple_evaluate(
        "hf",
        model_args=f"pretrained={folder},dtype=float32",
        device="cpu",
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    assert surveys, "the harness by itself makes one"
    for name in (
        "toy-choice.acc",
        "toy-choice.acc_norm",
        "toy-rolling.bits_per_byte",
        "toy-text.exact_match",
    ):
        task, _, metric = name.partition(".")
        assert measured[name] == pytest.approx(expected["results"][task][f"{metric},none"], abs=1e-4)
    assert measured.tables["tasks"][0]["questions"] == 6


def test_who_asks_for_quiet_sees_no_bars_and_bars_come_back(
    folder: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    measure = LmEval(tasks=("toy-choice",), include_path=str(tasks))
    monkeypatch.setenv("GPT2LAB_QUIET", "1")
    measure(load(folder))
    assert capfd.readouterr().err == ""
    monkeypatch.delenv("GPT2LAB_QUIET")
    measure(load(folder))
    assert "100%" in capfd.readouterr().err


def test_an_architecture_of_ours_is_measured_too(tasks: Path, tmp_path: Path) -> None:
    from gpt2lab.base.registry import part

    tokenizer = train_bpe(TEXTS, vocab_size=300)
    model = tiny("gpt2", vocab_size=tokenizer.vocab_size, max_positions=POSITIONS, eos=tokenizer.eos)
    plain = LmEval(tasks=("toy-rolling",), include_path=str(tasks))(LanguageModel(model, tokenizer))
    before = {id(parameter) for parameter in model.parameters()}
    attach(model, part("architecture", "lora")(rank=2))
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) not in before:
                parameter.fill_(0.3)
    save(LanguageModel(model, tokenizer), tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "gpt2lab"
    changed = LmEval(tasks=("toy-rolling",), include_path=str(tasks))(load(tmp_path / "model"))
    assert abs(changed["toy-rolling.bits_per_byte"] - plain["toy-rolling.bits_per_byte"]) > 1e-4


def test_the_harness_own_command_line_runs_our_model(folder: Path, tasks: Path, tmp_path: Path) -> None:
    if folder.name != "gpt2":
        return  # once is enough
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "GPT2LAB_HOME": str(tmp_path),
        "HF_DATASETS_OFFLINE": "1",
    }

    command = [
        *(sys.executable, "-m", "gpt2lab.lm_eval", "--model", "gpt2lab", "--tasks", "toy-choice"),
        *("--model_args", f"path={folder},dtype=float32", "--include_path", str(tasks), "--batch_size", "4"),
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    table = {
        line.split("|")[5].strip(): line.split("|")[7] for line in done.stdout.splitlines() if "acc" in line
    }
    assert float(table["acc"]) == pytest.approx(
        LmEval(tasks=("toy-choice",), include_path=str(tasks))(load(folder))["toy-choice.acc"], abs=1e-4
    )


def test_the_harness_makes_the_model_from_its_own_words(folder: Path, tmp_path: Path) -> None:
    from gpt2lab.lm_eval import GPT2LabModel

    made = GPT2LabModel.create_from_arg_string(
        f"path={folder},dtype=bfloat16,max_length=20", {"batch_size": "auto", "device": "cuda:0"}
    )
    assert (made.lm.model.dtype, made.max_length, made.batch_size) == (torch.bfloat16, 20, 16)
    for words, sentence in (
        (f"path={tmp_path}/nothing", "nothing: no such folder"),
        (f"path={folder},dtype=float33", "dtype=float33: no such number type"),
        (f"path={folder},max_length=4000", "max_length must lie between 1 and the model's 48 positions"),
    ):
        with pytest.raises(LabError, match=sentence):
            GPT2LabModel.create_from_arg_string(words)


def test_what_is_missing_is_said_in_one_sentence(folder: Path, tasks: Path) -> None:
    if folder.name != "gpt2":
        return  # once is enough: the harness reads thousands of files before it knows that a task is not among them
    lm = load(folder)
    with pytest.raises(LabError, match="lm-eval needs tasks, such as"):
        LmEval()(lm)
    with pytest.raises(LabError, match=r"toy-choise: no such task of lm-eval; did you mean toy-choice\?"):
        LmEval(tasks=("toy-choise",), include_path=str(tasks))(lm)
    with pytest.raises(LabError, match="no such folder; it holds the YAML files"):
        LmEval(tasks=("toy-choice",), include_path=str(tasks / "none"))(lm)
    with pytest.raises(LabError, match="this model has no tokenizer"):
        LmEval(tasks=("toy-choice",), include_path=str(tasks))(LanguageModel(lm.model))
