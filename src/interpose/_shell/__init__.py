"""What both shells are made of: no thread, task, lock or await of its own."""
