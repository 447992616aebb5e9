"""The losses of other libraries beside those of tutelage: see `__main__.py`."""
