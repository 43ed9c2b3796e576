"""The ground floor: errors, settings, files and progress. Imports nothing heavy."""
