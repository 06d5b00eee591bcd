"""Numpy, torch and FAISS in, numpy out. Nothing here imports pyspark."""
