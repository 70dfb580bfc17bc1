"""Stand-ins for packages that people come from: change the import, and what was written for them runs."""
