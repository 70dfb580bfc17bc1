"""The site: README, docs and a reference made from docstrings. `make docs` builds it."""
