"""The tests of digitd."""
