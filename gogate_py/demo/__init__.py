"""What ``gogate demo`` runs: a configuration for free ports, two small backend programs and the life of them all.

The backends know nothing of gogate: they are plain servers that ``gogate register`` puts into the gateway's pools, the
same way as a user's own program. Nothing else of the package imports this folder.
"""
