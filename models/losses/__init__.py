"""One file a loss: `discriminator_loss(real_logits, fake_logits)` and `generator_loss(fake_logits)`, each a scalar to minimise.

The first line of the file's docstring is its summary in the catalog.
"""
