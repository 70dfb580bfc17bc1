"""Drop-in replacements for packages that people come from: change the import, and what was written for them runs."""
