"""What we produce: transcripts, their formats, and the events of a stream."""
