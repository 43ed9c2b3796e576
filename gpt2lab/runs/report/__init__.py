"""Reports of runs: HTML, Markdown, and files for a paper of one's own."""
