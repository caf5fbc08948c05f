"""The door: one thin file a command. Parse, call, print."""
