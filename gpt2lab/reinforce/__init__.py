"""Rollouts, rewards, advantages, policy-gradient and preference losses."""

from gpt2lab.reinforce.algorithms import GRPO, PPO, RLOO, Algorithm, Reinforce
from gpt2lab.reinforce.kl import AdamKL, AdaptiveKL, FixedKL, ProportionalKL
from gpt2lab.reinforce.pairs import PreferenceBatches, PreferencePair, read_pairs
from gpt2lab.reinforce.preference import DPO
from gpt2lab.reinforce.reference import Reference
from gpt2lab.reinforce.rewards import Reward, WeightedRewards, of_text
from gpt2lab.reinforce.rollouts import Rollouts, rollouts, score_tokens, sequence_logprobs
from gpt2lab.reinforce.settings import PolicyResult, PolicySettings
from gpt2lab.reinforce.train import train_policy
from gpt2lab.reinforce.trainer import PolicyTrainer
from gpt2lab.reinforce.values import Critic

__all__ = [
    "DPO",
    "GRPO",
    "PPO",
    "RLOO",
    "AdamKL",
    "AdaptiveKL",
    "Algorithm",
    "Critic",
    "FixedKL",
    "PolicyResult",
    "PolicySettings",
    "PolicyTrainer",
    "PreferenceBatches",
    "PreferencePair",
    "ProportionalKL",
    "Reference",
    "Reinforce",
    "Reward",
    "Rollouts",
    "WeightedRewards",
    "of_text",
    "read_pairs",
    "rollouts",
    "score_tokens",
    "sequence_logprobs",
    "train_policy",
]
