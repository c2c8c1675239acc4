"""The walk of an image: predict, review, publish, retire."""
