"""grpcio as it is: what has no public name, and what its stacks leave to be done. See docs/design/0006-privates.md."""
