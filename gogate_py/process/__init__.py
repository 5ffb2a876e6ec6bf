"""The processes: one supervisor, one zygote, N workers, and what ties them together."""
