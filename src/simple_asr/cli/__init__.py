"""The command `simple-asr`."""
