"""The networks: a vector-quantised autoencoder, a latent denoiser, its control adapter and a discriminator.

Thin subclasses of MONAI's networks. Tensors are (batch, channel, i, j, k). Importing this package is cheap;
its modules import torch and MONAI.
"""
