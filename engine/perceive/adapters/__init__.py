"""Other people's models, made to follow the model contract: what they put out becomes `masks` and `scores`.

`adapt.adapt` is the way in: an open runner goes in, one that `contract.Contract` accepts comes out. Arithmetic
on arrays only; nothing here opens files or knows what comes after the network.
"""
