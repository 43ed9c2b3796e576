"""Hierarchical Frequency Tagging Probe (HFTP): A Unified Approach to Investigate Syntactic Structure
Representations in Large Language Models and the Human Brain.
"""
