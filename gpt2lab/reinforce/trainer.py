"""The trainer of a policy: texts are written, scored, turned into advantages, and learnt from in minibatches.

    for each iteration: rollouts → scores → rewards with their KL term → advantages → epochs x minibatches of updates

Dropout is off throughout, so that the policy that learns is the one that wrote: the ratio of the first update is 1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import sweep
from gpt2lab.decode.generate import row_generator
from gpt2lab.decode.interface import Limits
from gpt2lab.decode.loop import StepDecoder
from gpt2lab.decode.prompts import end_tokens, pad_token, suppressed_tokens
from gpt2lab.decode.sampling import Sampling
from gpt2lab.model.evaluating import evaluating
from gpt2lab.reinforce.algorithms import Algorithm, Experience, Now
from gpt2lab.reinforce.kl import Controller, FixedKL, kl_numbers, token_rewards
from gpt2lab.reinforce.losses import explained_variance
from gpt2lab.reinforce.reference import Reference
from gpt2lab.reinforce.rollouts import (
    Continuations,
    Rollouts,
    TokenScores,
    rollouts,
    score_tokens,
)
from gpt2lab.reinforce.settings import PolicyResult, PolicySettings
from gpt2lab.reinforce.values import Critic
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training import parameter_groups
from gpt2lab.training.checkpoints import (
    fingerprints,
    load_checkpoint,
    newest_checkpoint,
    prune,
    save_checkpoint,
)

VALUE = "value"
"""Name of the critic where there is one."""


class PolicyTrainer:
    """A policy, its critics, its reference and one optimizer for all that trains.

    `train_policy` drives it; a method with a loop of its own (roll-ins by a guide, several critics) calls `collect` and
    `learn` itself.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        settings: PolicySettings,
        critics: Mapping[str, Critic] | None = None,
        reference: Reference | None = None,
        controller: Controller | None = None,
        decoder: StepDecoder | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare training; with a reference and no controller the KL is measured but costs nothing.

        optimizer: over the parameters of policy and critics; default AdamW by the settings. LabError: nothing trains, a
        coefficient without a reference.
        """
        lm.config.require_causal("training a policy")
        self.lm, self.settings, self.seed = lm, settings, seed
        self.critics = dict(critics or {})
        self.reference, self.controller = reference, controller or FixedKL()
        if self.controller.coefficient and reference is None:
            raise LabError("a KL coefficient needs a reference: Reference(lm.model), made before training")
        self.decoder = decoder if decoder is not None else Sampling()
        self.limits = _limits(lm, settings)
        self.memory: dict[str, float] = {}
        """What algorithms and warm-ups keep from one iteration to the next."""
        self.modules = nn.ModuleDict(
            {"policy": lm.model, **{f"critic_{n}": c for n, c in self.critics.items()}}
        )
        self.optimizer = optimizer or self._adamw()
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if not self.parameters:
            raise LabError("nothing of this policy trains; attach an adapter, or let its weights train")
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", float(group["lr"]))
        self.frozen = fingerprints(self.modules)
        self.result = PolicyResult()

    def _adamw(self) -> torch.optim.AdamW:
        settings, own = self.settings, parameter_groups(self.lm.model, self.settings.weight_decay)
        rate = (
            settings.learning_rate if settings.critic_learning_rate is None else settings.critic_learning_rate
        )
        others = parameter_groups(nn.ModuleList(self.critics.values()), settings.weight_decay)
        groups = [*own, *({**group, "lr": rate} for group in others)]
        return torch.optim.AdamW(
            groups or [{"params": []}], lr=settings.learning_rate, betas=settings.betas, eps=settings.eps
        )

    def collect(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int | None = None,
        forced: Sequence[Sequence[int]] | None = None,
        decoder: StepDecoder | None = None,
    ) -> Rollouts:
        """Let the policy continue prompts (token ids); draws follow from the seed and the number of iterations made."""
        settings = self.settings
        return rollouts(
            self.lm.model,
            prompts,
            self.limits,
            samples=settings.samples if samples is None else samples,
            decoder=self.decoder if decoder is None else decoder,
            forced=forced,
            seed=self.seed,
            first=self.result.iterations * settings.rows,
            batch_size=settings.generation_batch,
        )

    def learn(
        self,
        made: Rollouts,
        scores: Tensor,
        algorithm: Algorithm,
        *,
        critic: str = VALUE,
        targets: Continuations | None = None,
        greedy: Tensor | None = None,
    ) -> dict[str, float]:
        """Learn from an iteration's texts, and return its numbers.

        scores [rows], or [rows, steps] of rewards for tokens. critic: name of the one to be used, if the algorithm reads
        values. targets: reference texts, a row for each of `made`. greedy: rewards of greedy texts, [rows].
        LabError: no such critic, no reference where one is needed, texts that minibatches do not divide, a loss or
        gradient that is not finite (before the update that would spread it).
        """
        self._check(made, algorithm, critic, targets)
        used = self.critics[critic] if algorithm.reads_values else None
        with evaluating(self.modules):
            order = self._minibatches(len(made), epoch=0)
            then = self._experience(made, scores, used, order, greedy)
            estimate = algorithm.credit(then, self.memory)
            then = replace(then, advantages=estimate.advantages, returns=estimate.returns)
            numbers = self._before(then, scores)
            waits = (
                used is not None and self.memory.get(f"warmup.{critic}", 0.0) < self.settings.critic_warmup
            )
            numbers |= self._updates(then, algorithm, used, order, targets, critic_only=waits)
        if used is not None:
            self.memory[f"warmup.{critic}"] = self.memory.get(f"warmup.{critic}", 0.0) + 1
        if "kl" in numbers:
            self.controller.update(numbers["kl"], len(made))
        self.result.iterations += 1
        self.result.rewards.append(numbers["reward"])
        self.result.numbers = numbers
        return numbers

    def _check(
        self, made: Rollouts, algorithm: Algorithm, critic: str, targets: Continuations | None
    ) -> None:
        name = type(algorithm).__name__
        if algorithm.reads_values and critic not in self.critics:
            raise LabError(
                f"{name} needs a critic named {critic}; this policy has {', '.join(self.critics) or 'none'}"
            )
        if algorithm.reads_reference and self.reference is None:
            raise LabError(f"{name} needs a reference: Reference(lm.model), made before training")
        if len(made) % self.settings.minibatch:
            raise LabError(f"{len(made)} texts are not divisible by minibatch {self.settings.minibatch}")
        if self.settings.target_weight and (targets is None or len(targets) != len(made)):
            raise LabError(
                "target_weight needs a reference text for each text; give targets, or leave it at 0"
            )

    def _minibatches(self, rows: int, *, epoch: int) -> tuple[Tensor, ...]:
        """Rows of each update of an epoch, in an order of its own."""
        generator = row_generator(self.seed, -1 - self.result.iterations * 1_000_003 - epoch)
        return torch.randperm(rows, generator=generator).split(self.settings.minibatch)

    @torch.no_grad()
    def _experience(
        self,
        made: Rollouts,
        scores: Tensor,
        critic: Critic | None,
        order: tuple[Tensor, ...],
        greedy: Tensor | None,
    ) -> Experience:
        """What policy, critic and reference say of the texts before the first update.

        It is worked out in the very minibatches of the first epoch: then the ratios of the first update are 1 to the bit.
        """
        back = torch.argsort(torch.cat(order)).to(made.tokens.device)
        found = [self._now(made.select(rows), critic) for rows in order]
        plain = torch.cat([one.model_logprobs for one in found])[back]
        known = None
        if self.reference is not None:
            known = torch.cat([self.reference.score(made.select(rows)).logprobs for rows in order])[back]
        clip = self.settings.score_clip
        rewards = token_rewards(
            (scores.clamp(-clip, clip) if clip else scores).to(plain.dtype),
            made.mask,
            logprobs=plain,
            reference=known,
            coefficient=self.controller.coefficient,
            mode=self.settings.kl_mode,
        )
        return Experience(
            rollouts=made,
            rewards=rewards,
            logprobs=torch.cat([one.logprobs for one in found])[back],
            model_logprobs=plain,
            values=None
            if critic is None
            else torch.cat([one.values for one in found if one.values is not None])[back],
            reference=known,
            greedy=greedy,
        )

    def _now(self, part: Rollouts, critic: Critic | None) -> Now:
        """What policy and critic say of a minibatch."""
        said: TokenScores = score_tokens(
            self.lm.model, part, sampling=self.settings.ratio == "sampling", entropy=True
        )
        assert said.entropy is not None
        return Now(
            logprobs=said.logprobs if said.sampling is None else said.sampling,
            model_logprobs=said.logprobs,
            entropy=said.entropy,
            values=None if critic is None else critic(part, said.states),
        )

    def _before(self, then: Experience, scores: Tensor) -> dict[str, float]:
        """Numbers of an iteration's texts, before anything is learnt from them."""
        made = then.rollouts
        whole = (scores if scores.dim() == 1 else torch.where(made.mask, scores, 0.0).sum(1)).double()
        quantiles = torch.quantile(whole, whole.new_tensor([0.1, 0.5, 0.9])).tolist()
        numbers = {
            "reward": float(whole.mean()),
            "reward_std": float(whole.std(unbiased=False)),
            **dict(zip(("reward_q10", "reward_q50", "reward_q90"), quantiles, strict=True)),
            "length": float(made.mask.sum(1).double().mean()),
            "ended": sum(reason == "eos" for reason in made.finished) / len(made),
            "updated": float(made.update_mask.sum() / made.mask.sum().clamp_min(1)),
        }
        if then.values is not None and then.returns is not None:
            numbers["explained_variance"] = explained_variance(then.values, then.returns, made.value_mask)
        if then.reference is not None:
            numbers |= kl_numbers(then.model_logprobs, then.reference, made.mask)
            numbers["kl_coefficient"] = self.controller.coefficient
        return numbers

    def _updates(
        self,
        then: Experience,
        algorithm: Algorithm,
        critic: Critic | None,
        order: tuple[Tensor, ...],
        targets: Continuations | None,
        *,
        critic_only: bool,
    ) -> dict[str, float]:
        """Go through the texts for the algorithm's epochs, or until the policy has moved too far; mean numbers."""
        sums: dict[str, float] = {}
        updates, stopped = 0, False
        share = 1.0
        if self.settings.schedule == "linear":
            share = 1 - self.result.iterations / self.settings.iterations
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
        for epoch in range(algorithm.epochs):
            for rows in order if epoch == 0 else self._minibatches(len(then.rollouts), epoch=epoch):
                part = then.select(rows)
                if critic_only:
                    part = replace(part, rollouts=_for_the_critic(part.rollouts))
                loss, numbers = algorithm.loss(self._now(part.rollouts, critic), part)
                limit = algorithm.target_kl
                if limit is not None and numbers.get("policy_kl", 0.0) > 1.5 * limit:
                    stopped = True
                    break
                if self.settings.target_weight and targets is not None and not critic_only:
                    truth = _cross_entropy(self.lm, targets.select(rows))
                    numbers["target"] = float(truth.detach())
                    loss = loss + self.settings.target_weight * truth
                numbers["gradient_norm"] = self._step(loss)
                updates += 1
                for name, number in {"loss": float(loss.detach()), **numbers}.items():
                    sums[name] = sums.get(name, 0.0) + number
            if stopped:
                break
        means = {name: total / updates for name, total in sums.items()} if updates else {}
        return {**means, "updates": updates, "learning_rate": self.optimizer.param_groups[0]["lr"]}

    def _step(self, loss: Tensor) -> float:
        """Make one update; returns the gradient's norm."""
        if not math.isfinite(float(loss.detach())):
            raise self._not_finite("loss", float(loss.detach()))
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf))
        if not math.isfinite(norm):
            raise self._not_finite("gradient's norm", norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _not_finite(self, what: str, value: float) -> LabError:
        self.optimizer.zero_grad(set_to_none=True)
        return LabError(
            f"the {what} is {value} in iteration {self.result.iterations + 1}; lower learning_rate, or limit scores with "
            "score_clip"
        )

    def save(self, folder: Path) -> Path:
        """Write a checkpoint: policy, critics, optimizer, controller and counts, whole or not at all."""
        notes: dict[str, Any] = {
            "controller": self.controller.state(),
            "memory": self.memory,
            "rewards": self.result.rewards,
        }
        path = save_checkpoint(
            folder, self.result.iterations, self.modules, self.optimizer, notes, self.frozen
        )
        prune(folder, self.settings.keep_last)
        return path

    def restore(self, folder: Path) -> int:
        """Go on from the newest whole checkpoint, bit for bit; returns its iteration, 0 if there is none."""
        sweep(folder)
        path = newest_checkpoint(folder)
        if path is None:
            return 0
        self.result.iterations, notes = load_checkpoint(path, self.modules, self.optimizer)
        self.controller.restore(notes["controller"])
        self.memory, self.result.rewards = dict(notes["memory"]), list(notes["rewards"])
        return self.result.iterations


def _limits(lm: LanguageModel, settings: PolicySettings) -> Limits:
    return Limits(
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens,
        eos=end_tokens(lm),
        pad=pad_token(lm),
        **suppressed_tokens(lm),
    )


def _for_the_critic(made: Rollouts) -> Rollouts:
    """Return texts that the policy learns nothing from."""
    return replace(made, update_mask=torch.zeros_like(made.update_mask))


def _cross_entropy(lm: LanguageModel, texts: Continuations) -> Tensor:
    """Mean of -log p over the tokens of reference texts; 0 without any."""
    return -score_tokens(lm.model, texts).logprobs.sum() / texts.mask.sum().clamp_min(1)
