"""Batteries that need a package beyond grpcio: one optional dependency per file, imported when used."""
