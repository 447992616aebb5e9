"""What is demanded of a student and whether it was shown: gates, budgets, verdicts, provenance."""
