"""Rollouts, rewards, advantages, policy-gradient and preference losses."""
