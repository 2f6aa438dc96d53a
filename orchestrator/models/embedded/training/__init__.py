"""Training of the embedded models; needs the ``train`` extra (torch)."""
