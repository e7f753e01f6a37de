"""What an autoencoder loses: real volumes encoded, quantised and decoded, against what went in (paper, table 3)."""
