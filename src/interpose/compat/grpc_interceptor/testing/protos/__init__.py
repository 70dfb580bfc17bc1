"""The messages of the service to try interceptors on, and its stub."""
