"""Metrics and logs: their names, their formats, and the way they leave a process."""
