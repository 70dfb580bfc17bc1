"""Seeded faults: one-line patches that a tired person would make, and whether the suite catches them."""
