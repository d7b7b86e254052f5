# PCL-SR for x4: L1 + 0.1 CL, temperature 1, and Adam with (0.9, 0.999), for the network and for its embedding.
model = dict(
    type="contrastive_sr.ContrastiveBaseEditModel",
    pixel_loss=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
    methods=[
        dict(
            type="PCL",
            name="pcl",
            # The paper's weight is 0.1 for images in [0, 255], where an L1 loss is 255 times as large as for images in
            # [0, 1], which MMagic feeds its losses; the contrastive term is as large as ever.
            # Instead of a weight, loss_share=0.05 asks for a share of the pixel loss's gradient.
            loss_weight=0.1 / 255,
            temperature=1.0,
            # every and phase are the paper's. At a larger share take out both, embedding and negatives: they make dots
            every=1,
            phase="fixed",
            embedding=dict(type="HaarDiscriminator", out_indices=[0, 1, 2, 3]),
            positives=[dict(type="HighResolution"), dict(type="Sharpen", count=3)],
            negatives=[dict(type="GaussianBlur", count=4)],
        )
    ],
    train_cfg=dict(),
    test_cfg=dict(),
    # images reach the losses as RGB in [0, 1]
    data_preprocessor=dict(type="DataPreprocessor", mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)

# The paper names no learning rate. 1e-4 is that of EDSR-PyTorch, which it starts from; the embedding's is our choice.
optim_wrapper = dict(
    constructor="contrastive_sr.MultiOptimWrapperConstructor",
    generator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),
    methods=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),
)
