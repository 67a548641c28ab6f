"""Parts that tests are built from: servers that run, images made in code, trees compared.

Nothing here imports ``ocidist``: what a test compares the program with must not be the program itself.
"""
