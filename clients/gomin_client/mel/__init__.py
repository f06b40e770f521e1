"""The mel front end, and mels in other scales."""
