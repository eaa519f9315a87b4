"""A folder for PYTHONPATH: what is loaded at the start of each Python that a command runs."""
