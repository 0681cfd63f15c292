"""From a model's samples to a data set with its measured risk, and a decision."""
