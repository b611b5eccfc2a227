"""One file a loss: two functions of the discriminator's logits [n], each with a scalar to minimise, and one constant.

    discriminator_loss(real_logits, fake_logits)
    generator_loss(real_logits, fake_logits)
    PAIRED                                        whether generator_loss reads real_logits, which are else None

The first line of the file's docstring is its summary in the catalog.
"""
