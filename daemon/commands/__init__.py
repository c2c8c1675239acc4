"""One file a command of `digitd`."""
