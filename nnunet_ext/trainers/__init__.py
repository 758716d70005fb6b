"""nnU-Net trainer subclasses, one class a file; the file has the name of the class."""
