"""How anything is run and remembered: claims, verdicts, runs, the store, studies and reports."""
