"""Configuration: YAML with positions → attrs classes → checks. It knows no processes, sockets or resolvers."""
