"""Pure decisions: routing, balancing, breaking, limiting. They decide and never do; clock and random are given."""
