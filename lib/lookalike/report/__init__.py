"""The page of pictures and figures to judge a published catalog by."""
