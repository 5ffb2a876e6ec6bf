"""The extension point: stages that a request passes between routing and picking a backend."""
