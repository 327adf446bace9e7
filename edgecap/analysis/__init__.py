"""Turn records into scores, verdicts, choices and predictions. Nothing here measures or prints."""
