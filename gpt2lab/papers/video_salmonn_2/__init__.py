"""video-SALMONN 2: Captioning-Enhanced Audio-Visual Large Language Models."""
