"""Tasks of lm-evaluation-harness as a measure."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.progress import quiet
from gpt2lab.measures.measurement import Measurement

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LmEval:
    """Scores at tasks of lm-evaluation-harness, its own or of YAML files (extra: eval)."""

    tasks: tuple[str, ...] = ()
    """Names of tasks or groups, such as lambada_openai or arc_easy."""
    include_path: str | None = None
    """Folder with YAML files of further tasks; those on local data need no network."""
    num_fewshot: int | None = None
    """Solved examples before each question; none means the task's own number."""
    limit: int | None = None
    """Use only the first N questions of each task."""
    batch_size: int = 16
    """Rows in one forward pass; changes speed and memory, not the numbers."""
    max_gen_toks: int = 256
    """Longest text, in tokens, of a task that sets no limit."""
    bootstrap: int = 0
    """Samples for the standard errors of metrics without a formula; 0 omits them."""
    seed: int = 0
    """Seed for the choice of examples and the sampling of tokens."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure. LabError: no tasks, an unknown one, data that cannot be had, a model that cannot generate."""
        if not self.tasks:
            raise LabError(
                "lm-eval needs tasks, such as --tasks lambada_openai, or --tasks NAME --include-path FOLDER"
            )
        from gpt2lab.measures.harness import HarnessModel  # says which extra is missing

        model = HarnessModel(lm, batch_size=self.batch_size, max_gen_toks=self.max_gen_toks, seed=self.seed)
        with _silence() if quiet() else contextlib.nullcontext():
            found = self._evaluated(model)
        numbers, rows = dict[str, float](), []
        for task, metrics in found["results"].items():
            numbers |= _numbers(task, metrics)
            about = {"version": found["versions"].get(task), "fewshot": found.get("n-shot", {}).get(task)}
            questions = found.get("n-samples", {}).get(task, {}).get("effective")
            rows.append(
                {"task": task, **{k: v for k, v in about.items() if v is not None}, "questions": questions}
            )
        return Measurement(
            name="lm-eval",
            numbers=numbers,
            units={name: "standard error" for name in numbers if name.endswith("_stderr")},
            tables={"tasks": rows},
            about={"tasks": list(self.tasks), "limit": self.limit, "lm_eval": _version()},
        )

    def _evaluated(self, model: Any) -> Mapping[str, Any]:
        from lm_eval import simple_evaluate

        manager = self._manager()
        try:
            with _without_survey():
                found = simple_evaluate(
                    model,
                    tasks=list(self.tasks),
                    num_fewshot=self.num_fewshot,
                    limit=self.limit,
                    task_manager=manager,
                    bootstrap_iters=self.bootstrap,
                    log_samples=False,
                    random_seed=None,
                    numpy_random_seed=None,
                    torch_random_seed=None,
                    fewshot_random_seed=self.seed,
                )
        except LabError:
            raise
        except (
            OSError
        ) as error:  # what the data library raises without a network, and for a file that is not there
            said = str(error).strip().split("\n")[0][:160]
            raise LabError(
                f"lm-eval: the data of {', '.join(self.tasks)} cannot be had ({said}); a task whose YAML file names "
                "local files needs no hub: --include-path FOLDER"
            ) from error
        assert found is not None  # only other processes of a distributed run get None
        result: Mapping[str, Any] = found
        return result

    def _manager(self) -> Any:
        """Return what knows the tasks. The thousands of the harness are read only if one of them is wanted."""
        from pathlib import Path

        from lm_eval.tasks import TaskManager

        if self.include_path is not None and not Path(self.include_path).is_dir():
            raise LabError(
                f"--include-path {self.include_path}: no such folder; it holds the YAML files of tasks"
            )
        own = (
            TaskManager(include_path=self.include_path, include_defaults=False) if self.include_path else None
        )
        if own is not None and all(task in own.all_tasks for task in self.tasks):
            return own
        every = TaskManager(include_path=self.include_path)
        for task in self.tasks:
            if task not in every.all_tasks:
                raise unknown(
                    "task of lm-eval", task, own.all_tasks if own and own.all_tasks else every.all_tasks
                )
        return every


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Draw no progress bars of the harness and of the data library, and drop their remarks; errors are told."""
    import logging

    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from tqdm import tqdm

    logger, usual, were_off = logging.getLogger("lm_eval"), tqdm.__init__, are_progress_bars_disabled()
    level = logger.level

    def drawing_nothing(self: Any, *given: Any, **named: Any) -> None:
        usual(self, *given, **(named | {"disable": True}))

    setattr(tqdm, "__init__", drawing_nothing)  # noqa: B010  the harness hands no such choice through
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        setattr(tqdm, "__init__", usual)  # noqa: B010  as above
        logger.setLevel(level)
        if not were_off:
            enable_progress_bars()


@contextlib.contextmanager
def _without_survey() -> Iterator[None]:
    """Keep the harness from asking pip, the compiler and the drivers what is installed: seconds for each measurement.

    A run has its environment from gpt2lab; nothing here reads the harness's own account.
    """
    from lm_eval import evaluator

    usual = evaluator.add_env_info
    setattr(evaluator, "add_env_info", lambda results: None)  # noqa: B010  as above
    try:
        yield
    finally:
        setattr(evaluator, "add_env_info", usual)  # noqa: B010  as above


def _numbers(task: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return a task's metrics, named task.metric, and task.metric.filter where a filter made them."""
    numbers = {}
    for key, value in metrics.items():
        metric, _, kept = key.partition(",")
        if kept and isinstance(value, (int, float)):
            numbers[f"{task}.{metric}" if kept == "none" else f"{task}.{metric}.{kept}"] = float(value)
    return numbers


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")
