"""The index of all answers, rejections and labels: derived from the folders, written behind the answers, rebuilt at will."""
