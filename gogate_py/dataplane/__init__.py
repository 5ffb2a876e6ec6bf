"""The data plane: owns every client and upstream connection; runs in each worker, knows only snapshots."""
