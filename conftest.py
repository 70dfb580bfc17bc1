"""How the suite is run: in parts, with what the system has, and with how many examples. Fixtures: tests/conftest.py."""

pytest_plugins = ["tests.support.parts", "tests.support.needs", "tests.support.examples", "tests.support.reports"]
