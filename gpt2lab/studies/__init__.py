"""Studies: claims, units of work and their scheduling, verdicts, sweeps, comparisons of parts."""
