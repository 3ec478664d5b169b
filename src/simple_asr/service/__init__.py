"""Use cases, whatever the door they are reached by."""
