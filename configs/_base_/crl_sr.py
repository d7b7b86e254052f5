# CRL-SR's two contrasts (arXiv 2107.00708); a config takes one of these lists as `methods` of its model.

# Eq. 3 without a network of its own: the outputs of two of the generator's modules on the LR image learn to carry what
# the embedding has of the HR image at the same place. A config names these `layers`, one for each map of the embedding.
nce_methods = [
    dict(
        type="BidirectionalNCE",
        name="nce",
        loss_share=0.05,  # of the pixel loss's gradient at these outputs; the paper gives no weight
        temperature=0.07,
        dim=256,  # of the heads' vectors; S in the paper
        positions=256,  # sampled per layer at each step; the paper does not say how many
        negatives_from="image",  # the other positions of the same image are the negatives
        embedding=dict(type="HaarDiscriminator", out_indices=[0, 1]),
        positives=[dict(type="HighResolution")],
    )
]

# Eq. 6 on SR, HR and enlarged LR images in an embedding. With "negative" the LR features are one more negative: unlike
# eq. 6 itself ("tempered", or "paper" without temperature) it needs no warm start. The paper gives no weight.
srnce_methods = [
    dict(
        type="SRNCE",
        name="srnce",
        loss_share=0.05,  # of the pixel loss's gradient at the SR image
        temperature=0.07,
        phase="fixed",  # the paper's
        variant="negative",
        dim=256,
        positions=256,
        negatives_from="image",
        embedding=dict(type="HaarDiscriminator", out_indices=[0, 1, 2, 3]),
        positives=[dict(type="HighResolution")],
        negatives=[dict(type="UpsampledLowResolution")],
    )
]
