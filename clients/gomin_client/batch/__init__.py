"""Many files: which inputs, which outputs, and how they are made."""
