"""Evidence on real images: what the contrast of DASR and of CRL-SR brings, at equal steps."""
