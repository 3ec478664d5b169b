"""From speech to text, many requests at once. No HTTP, no keys, no jobs."""
