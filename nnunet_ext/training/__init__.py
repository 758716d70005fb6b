"""What the options of `CustomTrainer` choose from: optimisers, learning-rate schedules and losses, a table each."""
