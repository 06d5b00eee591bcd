"""Shops' exports, read record by record, and the manifest that is made of them."""
