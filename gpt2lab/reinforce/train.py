"""Training a policy from prompts and a reward function: the loop over iterations."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress, progress
from gpt2lab.decode.generate import Generation
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.loop import StepDecoder
from gpt2lab.decode.prompts import prompt_tokens
from gpt2lab.reinforce.algorithms import PPO, Algorithm
from gpt2lab.reinforce.kl import Controller, FixedKL
from gpt2lab.reinforce.reference import Reference
from gpt2lab.reinforce.rewards import Reward, WeightedRewards, scored
from gpt2lab.reinforce.rollouts import continuations
from gpt2lab.reinforce.settings import PolicyResult, PolicySettings
from gpt2lab.reinforce.trainer import VALUE, PolicyTrainer
from gpt2lab.reinforce.values import Critic
from gpt2lab.text.batches import Epochs
from gpt2lab.text.language_model import LanguageModel


def train_policy(
    lm: LanguageModel,
    prompts: Sequence[str | Sequence[int]],
    reward: Reward,
    *,
    settings: PolicySettings,
    algorithm: Algorithm | Callable[[int], Algorithm] | None = None,
    critic: Critic | None = None,
    reference: Reference | None = None,
    controller: Controller | None = None,
    decoder: StepDecoder | None = None,
    targets: Sequence[Sequence[int]] | None = None,
    log: Callable[..., None] | None = None,
    watch: Callable[[int, Sequence[Generation], Tensor], None] | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    seed: int = 0,
    label: str = "policy",
) -> PolicyResult:
    """Train `lm` in place to write texts that the reward function values.

    prompts: texts or token ids, shown in an order drawn from the seed, each once an epoch. algorithm: default `PPO()`; a
    function gets the iteration. critic: of an algorithm that reads values, default a head beside the policy. reference and
    controller: the KL to a frozen policy and what it costs; a coefficient makes the reference that is not given.
    targets: for each prompt the token ids of a text to stay near, see `target_weight`. log(iteration, **numbers) gets a
    row an iteration, watch(iteration, texts, scores) the texts. checkpoints: folder for the state; with resume=True the
    newest whole one is continued, bit for bit. LabError: no prompts, a reward that is no finite number, and those of
    `PolicyTrainer.learn`.
    """
    if isinstance(prompts, str):
        raise LabError(f"prompts are a list of texts, got one text; give [{prompts[:40]!r}]")
    if not prompts:
        raise LabError("no prompts to write from; an empty text stands for the beginning of a text")
    if targets is not None and len(targets) != len(prompts):
        raise LabError(f"{len(targets)} targets for {len(prompts)} prompts; give each its own")
    ids = [prompt_tokens(lm, prompt) for prompt in prompts]
    chosen = _chooser(algorithm)
    controller = controller or FixedKL()
    if reference is None and (controller.coefficient or chosen(0).reads_reference):
        reference = Reference(lm.model)
    critics = (
        {} if critic is None and not chosen(0).reads_values else {VALUE: critic or Critic.beside(lm.model)}
    )
    trainer = PolicyTrainer(
        lm,
        settings=settings,
        critics=critics,
        reference=reference,
        controller=controller,
        decoder=decoder,
        seed=seed,
    )
    first = trainer.restore(checkpoints) if resume and checkpoints is not None else 0
    order = Epochs(len(ids), settings.prompts, seed, True, 0, 1)
    line: Progress[int] = progress(total=settings.iterations, label=label, unit="iteration", done=first)
    with line:
        for iteration in range(first, settings.iterations):
            items = [item for _, item in order.rows(iteration)]
            numbers = _iterate(trainer, ids, items, reward, chosen(iteration), targets, watch)
            line.advance()
            line.note(f"reward {numbers['reward']:.3g}")
            if log is not None:
                log(iteration + 1, **numbers)
            last = iteration + 1 == settings.iterations
            every = settings.checkpoint_every
            if checkpoints is not None and (last or (every and (iteration + 1) % every == 0)):
                trainer.save(checkpoints)
    return trainer.result


def _chooser(algorithm: Algorithm | Callable[[int], Algorithm] | None) -> Callable[[int], Algorithm]:
    """Return which algorithm an iteration uses."""
    if isinstance(algorithm, type):
        raise LabError(
            f"algorithm: got the class {algorithm.__name__}; give an instance, {algorithm.__name__}()"
        )
    if algorithm is None or not callable(algorithm):
        fixed: Algorithm = PPO() if algorithm is None else algorithm
        return lambda iteration: fixed
    return algorithm


def _iterate(
    trainer: PolicyTrainer,
    ids: Sequence[Sequence[int]],
    items: Sequence[int],
    reward: Reward,
    algorithm: Algorithm,
    targets: Sequence[Sequence[int]] | None,
    watch: Callable[[int, Sequence[Generation], Tensor], None] | None,
) -> dict[str, float]:
    """Collect, score and learn once, from the prompts of these numbers."""
    lm, samples = trainer.lm, trainer.settings.samples
    here = [ids[item] for item in items]
    made = trainer.collect(here)
    texts = made.generations(lm)
    scores = scored(reward, texts, made)
    parts = dict(reward.means) if isinstance(reward, WeightedRewards) else {}
    iteration = trainer.result.iterations + 1
    if watch is not None:
        watch(iteration, texts, scores)
    greedy = None
    if algorithm.reads_greedy:
        best = trainer.collect(here, samples=1, decoder=Greedy())
        found = scored(reward, best.generations(lm), best)
        whole = found if found.dim() == 1 else found.sum(1)
        greedy = whole.repeat_interleave(samples)
    laid = None
    if targets is not None:
        rows = [item for item in items for _ in range(samples)]
        laid = continuations(
            [ids[row] for row in rows],
            [targets[row] for row in rows],
            pad=trainer.limits.pad,
            device=made.tokens.device,
        )
    numbers = trainer.learn(made, scores, algorithm, targets=laid, greedy=greedy)
    numbers |= parts  # the result's numbers too
    return numbers
