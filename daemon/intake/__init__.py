"""The inbox: watch it, sweep it, admit what is whole, claim it."""
