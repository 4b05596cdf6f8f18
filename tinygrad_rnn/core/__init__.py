"""The engine: tensors, the tape, and what reads it."""
