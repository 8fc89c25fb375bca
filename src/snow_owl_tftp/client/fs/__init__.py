"""`tftp://` for fsspec: `filesystem` is what fsspec finds, `files` are the files that it opens.

Nothing is imported here, so that `files` can be used without fsspec (the extra `fsspec`).
"""
