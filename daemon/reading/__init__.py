"""From a file's bytes to a (28, 28) image in MNIST's form, in processes that a hostile file may ruin."""
