"""How long a test waits for what comes at once, on a machine that does much else."""

PATIENCE = 20.0  # seconds after which a wait, a call or a process counts as hung

# Seconds of a call that is to run out of time once it is under way: little; and much, for the second try on a machine so
# busy that the time was over before that.
TIMEOUTS = (0.1, 3.0)
