"""How long a test waits for what comes at once, on a machine that does much else."""

PATIENCE = 20.0  # seconds after which a wait, a call or a process counts as hung
