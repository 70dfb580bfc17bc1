"""How the suite is run: in parts, with what the system has, and with how many examples. Fixtures: tests/conftest.py."""

pytest_plugins = [f"tests.support.{what}" for what in ("parts", "needs", "examples", "collector", "reports", "workers")]
