"""What was found: raw evidence, the metrics computed from it in float64, and their confidence intervals."""
