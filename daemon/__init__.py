"""digitd: a file dropped into inbox/ becomes a JSON result in results/."""

__version__ = "0.1.0"
