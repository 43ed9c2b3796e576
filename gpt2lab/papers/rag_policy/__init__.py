"""Reinforcement Learning for Optimizing RAG for Domain Chatbots."""
