"""BoxFlow-GRPO: a spatial reward from defect boxes that aligns a flow-matching generator (§4.2)."""
