"""A picture becomes a content hash and an embedding, or a reason for none: read once, hashed, and embedded once.

Callers name their pictures by a key of their own: an image_id, a query_id, a content_hash. What a call stores stands in
its staging folder alone, so that each caller decides what is kept: `embed` stores the embeddings of catalog images, and
of query photos nothing is kept.
"""
