"""One file a loss: two functions of the discriminator's logits [n], each with a scalar to minimise, and two constants.

    discriminator_loss(real_logits, fake_logits)
    generator_loss(real_logits, fake_logits)
    PAIRED                                        whether generator_loss reads real_logits, which are else None
    LEVEL                                         the logit of a D that cannot tell; None where only differences of logits count

The first line of the file's docstring is its summary in the catalog.
"""
