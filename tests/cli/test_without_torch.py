"""A mistake in a name, a value or what is missing is answered in a moment: without importing torch."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import in_process_environment

MISTAKES = {
    "train": "data: nothing to train on",
    "train --data tinyworld:9 --steps many": "train.steps must be a whole number, got 'many'",
    "train --data tinyworld:9 --layers 2": "did you mean --n-layers?",
    "train --data tinyworld:9 --samples 2": "give it as --set samples=VALUE",
    "train --data tinyworld:9 --set train.stepz=3": "no setting train.stepz; did you mean train.steps?",
    "train --data tinyworld:9 --family gpt3": "family must be one of gpt2",
    "train --data tinyworld:9 --set lora.rnk=3": "no setting lora.rnk; did you mean lora.rank?",
    "train --data tinyworld:9 --set quantize.scheme=nf5": "quantize.scheme must be one of",
    "train --data tinyworld:9 --set task.kind=clasification": "did you mean classification?",
    "train --data tinyworld:9 --model FOLDER --d-model 512": "d_model would be ignored",
    "train --data tinyworld:9 --architecture soft-prompt --set architecture_options.lenth=3": "did you mean length?",
    "train --data tinyworld:9 --objective simctg --set objective_options.margim=3": "did you mean margin?",
    "train --data tinyworld:9 --objective simctgg": "did you mean simctg?",
    "train --data tinyworld:9 --optimizer conda --set optimizer_options.refrsh=3": "did you mean refresh?",
    "train --data tinyworld:9 --optimizer conda --set optimizer_options.side=lft": "optimizer_options.side must be",
    "train --data tinyworld:9 --optimizer sophia-g --set optimizer_options.gama=3": "did you mean gamma?",
    "train --data tinyworld:9 --optimizer adamv": "did you mean adamw?",
    "generate FOLDER": "what to go on from is missing",
    "generate FOLDER hello --stopp x": "did you mean --stop?",
    "generate FOLDER hello --top-p 0.9": "no option of greedy, but of sampling",
    "generate FOLDER hello --decoder sampling --top-p x": "top_p must be a number, got 'x'",
    "generate FOLDER hello --set top_q=1": "top_q: no such option of generate with decoder greedy",
    "generate FOLDER hello --decoder contrastive-search --set penalty_alpa=1": "no such option of generate",
    "generate FOLDER hello --set keep=0": "--set keep: no option of a decoder",
    "generate FOLDER hello --max-new-tokens many": "--max-new-tokens: must be a whole number",
    "measure perplexity FOLDER --strid 3": "did you mean --stride?",
    "measure perplexity FOLDER --window x": "window must be a whole number",
    "measure perplexity FOLDER --set lmit=3": "no setting lmit; did you mean limit?",
    "measure multiple-choice FOLDER": "data is missing",
    "measure perplexity FOLDER --seed 1": "draws nothing",
    "apply quantize FOLDER --bit 8": "did you mean --bits?",
    "apply quantize FOLDER --scheme nf5": "scheme must be one of",
    "apply quantize FOLDER --set bitz=8": "no setting bitz; did you mean bits?",
    "apply remove-layernorm FOLDER --mode fastt": "mode must be one of",
    "compare decoders --on FOLDER/none --scale smoke": "none",
    "compare decoders --on docstrings --scale smoke --set promts=3": "did you mean prompts?",
    "compare decoders --on docstrings --scale smoke --only greddy": "did you mean greedy?",
    "compare decoders --on docstrings --scale smoke --only 'sampling top_q=3'": "did you mean top_p?",
    "compare decoders --on docstrings --scale smoke --only 'sampling top_p=x'": "top_p must be a number",
    "compare optimizers --on nosuch.txt --scale smoke": "nosuch.txt: no such file",
    "compare optimizers --scale smoke --set workload.d_modl=3": "did you mean workload.d_model?",
    "compare optimizers --scale smoke --only 'lion bets=0.9,0.9'": "did you mean betas?",
    "compare measures FOLDER --on nosuch.txt --scale smoke": "nosuch.txt: no such file",
    "reproduce conda --scale smoke --set tuning_stepz=3": "did you mean tuning_steps?",
    "reproduce conda --scale smoke --set tuning_steps=many": "tuning_steps must be a whole number",
    "predict FOLDER --data nosuch.csv": "nosuch.csv: no such file",
    "predict FOLDER a --truncate middle": "invalid choice: 'middle'",
    "split nosuch.csv --out x": "nosuch.csv: no such file",
    "split FOLDER --out x --by hsah": "did you mean hash?",
    "vectors --data nosuch.txt --out FOLDER/x.bin": "nosuch.txt: no such file",
    "vectors --data tinyworld:9 --out FOLDER/x.txt": "ends in .bin or .vec",
    "vectors --data tinyworld:9 --out FOLDER/x.bin --vectors skip": "did you mean skipgram?",
    "vectors --data tinyworld:9 --out FOLDER/x.bin --set counting.windw=3": "did you mean counting.window?",
    "export FOLDER --to ggml --out x": "invalid choice: 'ggml'",
}

CODE = """
import contextlib, io, json, sys, time
from gpt2lab.cli import main
told = []
for line in json.load(sys.stdin):
    said, began = io.StringIO(), time.process_time()
    with contextlib.redirect_stderr(said):
        status = main(line)
    told.append((status, said.getvalue(), "torch" in sys.modules, time.process_time() - began))
json.dump(told, sys.stdout)
"""


def test_a_mistake_that_the_words_show_is_answered_without_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    lines = [[word.replace("FOLDER", str(tmp_path)) for word in shlex.split(line)] for line in MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        env=in_process_environment(tmp_path / "runs"),
        check=True,
    )
    for (line, sentence), (status, said, torch, _) in zip(
        MISTAKES.items(), json.loads(done.stdout), strict=True
    ):
        assert (status, said.count("\n"), torch) == (2, 1, False), (line, said)
        assert sentence in said, (line, said)
    assert not (tmp_path / "runs").exists()
