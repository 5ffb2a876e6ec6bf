"""Control plane: intent. Runs once, in the supervisor: configuration, registry, names, health → frozen snapshots."""
