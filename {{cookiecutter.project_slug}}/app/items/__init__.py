"""The sample resource. Copy it for your own, then delete it: nothing else knows of it."""
