"""VLog: Video-Language Models by Generative Retrieval of Narration Vocabulary."""
