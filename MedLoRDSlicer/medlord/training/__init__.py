"""Training of the three networks: autoencoder, diffusion, control; on prepared cases, resumable, seeded."""
