"""Turn records into scores, verdicts, recommendations and predictions; measure nothing."""
