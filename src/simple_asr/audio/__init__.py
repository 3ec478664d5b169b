"""From bytes to speech. No language, no HTTP."""
