"""Learning both weights and connections: prune by magnitude, then retrain what is left (Han et al. 2015)."""
